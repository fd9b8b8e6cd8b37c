//! Connections to one server: opened when they are needed, kept while the server keeps them.

use super::chunk::first;
use super::spec::{Api, Target};
use super::url::Url;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

/// Characters of a key by which it is recognised at the end of a text.
const RECOGNISED: usize = 4;

/// Most bytes of a page that is no stream.
const LONGEST_PAGE: usize = 64 << 20;

/// How soon a request shows that its connection had been closed before.
const NOTICED: Duration = Duration::from_secs(1);

/// A connection that takes requests one after the other.
pub(super) type Connection = SendRequest<Full<Bytes>>;

/// Why there was no response.
#[derive(Debug)]
pub(super) enum NoResponse {
    Unreachable(String),
    Cut(String),
}

/// A server, and the connections to it.
pub struct Client {
    url: Url,
    api: Api,
    model: String,
    key: Option<Key>,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    addresses: Vec<SocketAddr>,
    idle: Mutex<Vec<Connection>>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({})", self.url.authority)
    }
}

/// What nobody may read.
struct Key {
    secret: String,
    header: HeaderValue,
}

impl Client {
    /// # Errors
    /// An address that is none or has no host; a variable without a key; no certificates to trust.
    pub fn new(target: &Target, key: Option<String>) -> Result<Self, String> {
        let url = Url::parse(&target.endpoint)?;
        let addresses: Vec<SocketAddr> = (url.host.as_str(), url.port)
            .to_socket_addrs()
            .map_err(|e| format!("{}: there is no such host ({e})", url.host))?
            .collect();
        let tls = if url.tls { Some(trusting(&url.host)?) } else { None };
        let key = key.map(Key::of).transpose()?;
        let (api, model) = (target.api, target.model.clone());
        Ok(Self { url, api, model, key, tls, addresses, idle: Mutex::default() })
    }

    pub(super) fn api(&self) -> Api {
        self.api
    }

    pub(super) fn model(&self) -> &str {
        &self.model
    }

    /// The text without the key, should a server repeat it.
    pub(super) fn clean(&self, text: String) -> String {
        self.key.as_ref().map_or(text.clone(), |key| key.out_of(&text))
    }

    /// Sends a request for an answer; the connection, for when the response has been read, and the response. `again` becomes true
    /// where it was sent over a kept connection, which ended, and then once more: the server may have seen it twice.
    ///
    /// # Errors
    /// No connection, or one that ended before a response began.
    pub(super) async fn ask(
        &self,
        body: Bytes,
        again: &mut bool,
    ) -> Result<(Connection, Response<Incoming>), NoResponse> {
        let path = match self.api {
            Api::Chat => "chat/completions",
            Api::Completions => "completions",
        };
        let path = format!("{}/{path}", self.url.path);
        if let Some(mut connection) = self.waiting().await {
            let sent = Instant::now();
            match connection.try_send_request(self.request(Method::POST, &path, body.clone())?).await {
                Ok(response) => return Ok((connection, response)),
                Err(mut e) => {
                    // Otherwise not a byte of it has gone out.
                    *again = e.take_message().is_none();
                    // Closed by the server while nothing was asked, as a rule, which only the next request notices. What was under
                    // way for longer the server has seen.
                    if *again && sent.elapsed() >= NOTICED {
                        *again = false;
                        return Err(cut(&e.into_error()));
                    }
                }
            }
        }
        self.over_new(self.request(Method::POST, &path, body)?).await
    }

    /// A page of the server: its status and what it holds.
    ///
    /// # Errors
    /// No connection, no response in time, a page of more than 64 MiB.
    pub async fn page(&self, path: &str, patience: Duration) -> Result<(u16, Vec<u8>), String> {
        let get = async {
            let path = self.url.at(path).path;
            let path = if path.is_empty() { "/" } else { &path };
            let said = |e: NoResponse| match e {
                NoResponse::Unreachable(why) | NoResponse::Cut(why) => why,
            };
            let request = self.request(Method::GET, path, Bytes::new()).map_err(said)?;
            let (_connection, response) = self.over_new(request).await.map_err(said)?;
            let status = response.status().as_u16();
            let page = Limited::new(response.into_body(), LONGEST_PAGE).collect().await.map_err(|e| e.to_string())?;
            Ok((status, page.to_bytes().to_vec()))
        };
        match tokio::time::timeout(patience, get).await {
            Ok(got) => got.map_err(|why| self.clean(why)),
            Err(_) => Err(format!("no response within {} s", patience.as_secs_f64())),
        }
    }

    /// A connection whose response has been read to its end may take another request.
    pub(super) fn give_back(&self, connection: Connection) {
        if !connection.is_closed() {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        }
    }

    /// One that waits for a request and that the server has not closed.
    async fn waiting(&self) -> Option<Connection> {
        loop {
            let mut connection = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
            if connection.ready().await.is_ok() {
                return Some(connection);
            }
        }
    }

    async fn over_new(&self, request: Request<Full<Bytes>>) -> Result<(Connection, Response<Incoming>), NoResponse> {
        let mut connection = self.open().await.map_err(NoResponse::Unreachable)?;
        match connection.send_request(request).await {
            Ok(response) => Ok((connection, response)),
            Err(e) => Err(cut(&e)),
        }
    }

    fn request(&self, method: Method, path: &str, body: Bytes) -> Result<Request<Full<Bytes>>, NoResponse> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, &self.url.authority)
            .header(USER_AGENT, concat!("centime/", env!("CARGO_PKG_VERSION")))
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "text/event-stream, */*");
        if let Some(key) = &self.key {
            request = request.header(AUTHORIZATION, key.header.clone());
        }
        request.body(Full::new(body)).map_err(|e| NoResponse::Unreachable(format!("{path} cannot be asked for: {e}")))
    }

    async fn open(&self) -> Result<Connection, String> {
        let mut why = format!("{} has no address", self.url.host);
        for address in &self.addresses {
            let stream = match TcpStream::connect(address).await {
                Ok(stream) => stream,
                Err(e) => {
                    why = format!("{address}: {e}");
                    continue;
                }
            };
            // A request is one write: without it the last piece of a long one would wait for an acknowledgement.
            let _ = stream.set_nodelay(true);
            return match &self.tls {
                None => begin(TokioIo::new(stream)).await,
                Some((connector, name)) => {
                    let stream = connector.connect(name.clone(), stream).await;
                    begin(TokioIo::new(stream.map_err(|e| format!("{address}: TLS: {e}"))?)).await
                }
            };
        }
        Err(why)
    }
}

impl Key {
    fn of(secret: String) -> Result<Self, String> {
        let mut header = HeaderValue::from_str(&format!("Bearer {secret}"))
            .map_err(|_| "the API key holds a character that no header can (a line's end?)".to_string())?;
        header.set_sensitive(true);
        Ok(Self { secret, header })
    }

    /// The text without it, and without its beginning where the text was cut off within it.
    fn out_of(&self, text: &str) -> String {
        let clean = text.replace(&self.secret, "(the key)");
        let cut = (RECOGNISED..self.secret.len())
            .rev()
            .filter_map(|n| self.secret.get(..n))
            .find(|part| clean.ends_with(part));
        match cut.and_then(|part| clean.strip_suffix(part)) {
            Some(before) => format!("{before}(the key)"),
            None => clean,
        }
    }
}

fn cut(e: &hyper::Error) -> NoResponse {
    let cause = std::error::Error::source(e).map_or(String::new(), |cause| format!(": {cause}"));
    NoResponse::Cut(first(&format!("the connection ended before a response began ({e}{cause})")))
}

/// Speaks HTTP/1.1 over a stream, which is read and written beside the requests on it.
async fn begin<T>(io: TokioIo<T>) -> Result<Connection, String>
where
    TokioIo<T>: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (sender, connection) = handshake(io).await.map_err(|e| e.to_string())?;
    tokio::spawn(async move {
        // How it ended is told to whoever waits for a response on it.
        let _ = connection.await;
    });
    Ok(sender)
}

/// What a TLS connection needs: the certificates that this system trusts.
fn trusting(host: &str) -> Result<(TlsConnector, ServerName<'static>), String> {
    let name = ServerName::try_from(host.to_string()).map_err(|e| format!("{host}: no name for TLS ({e})"))?;
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        return Err(
            "this system has no certificates to trust a server by; install ca-certificates, or name a file of them in \
                    SSL_CERT_FILE"
                .into(),
        );
    }
    let config = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| format!("TLS: {e}"))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok((TlsConnector::from(Arc::new(config)), name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_taken_out_of_texts_wherever_they_end() {
        let key = Key::of("sk-0123456789".into()).unwrap();
        assert_eq!(key.out_of("bad key sk-0123456789!"), "bad key (the key)!");
        assert_eq!(key.out_of("bad key sk-01234"), "bad key (the key)");
        assert_eq!(key.out_of("no key"), "no key");
        assert!(Key::of("a\nb".into()).is_err());
        assert_eq!(format!("{:?}", key.header), "Sensitive");
    }
}
