//! The backend of NVIDIA GPUs: the model's operations as kernels of our own and cuBLASLt's products.
//!
//! Compiled into every build; libraries are found at run time. `device` is the seam between what the backend asks for and what
//! does it.

#[allow(dead_code)]
mod activation;
#[allow(dead_code)]
mod attention;
#[allow(dead_code)]
mod columns;
#[allow(dead_code)]
mod decode;
pub mod device;
#[allow(dead_code)]
mod dropout;
#[allow(dead_code)]
mod elementwise;
#[allow(dead_code)]
mod embedding;
#[cfg(test)]
mod host;
#[allow(dead_code)]
mod launch;
#[allow(dead_code)]
mod loss;
#[allow(dead_code)]
mod norm;
#[allow(dead_code)]
mod optimizer;
#[allow(dead_code)]
mod rope;
#[allow(dead_code)]
mod rows;
