//! Load on servers whose times are known, and on servers that do what no server should.

mod cost;
mod exact;
mod hostile;
mod llama_server;
mod mock;
mod support;
mod whole;
