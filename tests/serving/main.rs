//! Load on servers whose times are known, and on servers that do what no server should.

mod exact;
mod hostile;
mod mock;
mod support;
mod whole;
