//! Addresses of servers: `http://127.0.0.1:8000/v1`.

/// An address, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Url {
    pub tls: bool,
    /// Without the brackets of an IPv6 address.
    pub host: String,
    pub port: u16,
    /// As the header `Host` has it.
    pub authority: String,
    /// Without a slash at the end: `/v1`, or nothing.
    pub path: String,
}

impl Url {
    /// # Errors
    /// What is wrong with it, and how such addresses look.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let refused = |why: &str| format!("`{text}` {why}; expected an address like http://127.0.0.1:8000/v1");
        let (scheme, rest) = text.split_once("://").ok_or_else(|| refused("names no protocol"))?;
        let tls = match scheme {
            "http" => false,
            "https" => true,
            _ => return Err(refused("is neither http nor https")),
        };
        let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        if authority.contains('@') {
            return Err(refused(
                "holds a name or password, which do not belong in a file (engine.api_key_env names a variable)",
            ));
        }
        let strange = |c: char| c.is_whitespace() || c.is_control() || !c.is_ascii() || matches!(c, '?' | '#');
        if text.contains(strange) {
            return Err(refused("holds a character that has no place in it"));
        }
        let bracketed = authority.strip_prefix('[').and_then(|a| a.split_once(']'));
        let (host, port) = match bracketed {
            Some((host, port)) => (host, port.strip_prefix(':')),
            None => authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port))),
        };
        let port = match port {
            None => {
                if tls {
                    443
                } else {
                    80
                }
            }
            Some(port) => port.parse().ok().filter(|p| *p > 0).ok_or_else(|| refused("has a port that is none"))?,
        };
        if host.is_empty() {
            return Err(refused("names no host"));
        }
        let path = path.trim_end_matches('/').to_string();
        Ok(Self { tls, host: host.into(), port, authority: authority.into(), path })
    }

    /// Another path of the same server: `/metrics`.
    pub(super) fn at(&self, path: &str) -> Self {
        Self { path: path.trim_end_matches('/').into(), ..self.clone() }
    }
}

/// Whether an address can be one.
///
/// # Errors
/// What is wrong with it, and how such addresses look.
pub(crate) fn check(text: &str) -> Result<(), String> {
    Url::parse(text).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart() {
        let of = |text: &str| Url::parse(text).map(|u| (u.tls, u.host, u.port, u.path));
        assert_eq!(of("http://127.0.0.1:8000/v1"), Ok((false, "127.0.0.1".into(), 8000, "/v1".into())));
        assert_eq!(of("https://api.example.com/v1/"), Ok((true, "api.example.com".into(), 443, "/v1".into())));
        assert_eq!(of("http://[::1]:80"), Ok((false, "::1".into(), 80, String::new())));
        assert_eq!(Url::parse("http://[::1]:80/a").unwrap().authority, "[::1]:80");
        assert_eq!(Url::parse("http://a/v1").unwrap().at("/metrics").path, "/metrics");
    }

    #[test]
    fn what_is_no_address_is_told_how_one_looks() {
        for text in
            ["", "localhost:8000", "ftp://a", "http://", "http://a:0", "http://a:x", "http://u:p@a", "http://a b"]
        {
            let fault = check(text).unwrap_err();
            assert!(fault.ends_with("; expected an address like http://127.0.0.1:8000/v1"), "{fault}");
        }
    }
}
