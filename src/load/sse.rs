//! Server-sent events, as HTML's standard has them (section 9.2.6): bytes in, in pieces of any size, the data of events out.
//!
//! Comments (keep-alives), event names, ids and retry times are passed over; bytes that are no UTF-8 become U+FFFD. A field `error`, which the
//! standard does not know, is an event of that error: llama-server had it before it sent errors as data.

/// Longest line, and the most data of one event.
const LONGEST: usize = 16 << 20;

/// What has been read and is not an event yet.
#[derive(Debug, Default)]
pub(super) struct Events {
    line: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
    /// The last line ended with a carriage return: a line feed that follows belongs to it.
    after_return: bool,
    begun: bool,
}

/// A line without an end, or an event of more data than anybody sends.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLong;

impl Events {
    /// Takes the next bytes, and calls `event` with the data of every event that ends in them.
    ///
    /// # Errors
    /// An event or a line that is too long.
    pub(super) fn feed(&mut self, bytes: &[u8], event: &mut dyn FnMut(&str)) -> Result<(), TooLong> {
        let mut rest = bytes;
        if self.after_return && rest.first() == Some(&b'\n') {
            rest = rest.get(1..).unwrap_or_default();
        }
        if !bytes.is_empty() {
            self.after_return = false;
        }
        while let Some(at) = rest.iter().position(|b| matches!(b, b'\n' | b'\r')) {
            let (line, after) = rest.split_at(at);
            self.line.extend_from_slice(line);
            self.end_of_line(event)?;
            let crlf = after.starts_with(b"\r\n");
            self.after_return = after == b"\r";
            rest = after.get(if crlf { 2 } else { 1 }..).unwrap_or_default();
        }
        self.line.extend_from_slice(rest);
        if self.line.len() > LONGEST { Err(TooLong) } else { Ok(()) }
    }

    fn end_of_line(&mut self, event: &mut dyn FnMut(&str)) -> Result<(), TooLong> {
        let line = std::mem::take(&mut self.line);
        let marked = if self.begun { None } else { line.strip_prefix(b"\xef\xbb\xbf") };
        self.begun = true;
        let line = marked.unwrap_or(&line);
        if line.is_empty() {
            // An event without data is none.
            if std::mem::take(&mut self.has_data) {
                event(&String::from_utf8_lossy(&self.data));
            }
            self.data.clear();
            return Ok(());
        }
        let (field, value) = match line.iter().position(|b| *b == b':') {
            Some(at) => (&line[..at], &line[at + 1..]),
            None => (line, &[][..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        if field == b"data" || field == b"error" {
            if self.has_data {
                self.data.push(b'\n');
            }
            if field == b"error" {
                self.data.extend_from_slice(&[b"{\"error\":", value, b"}"].concat());
            } else {
                self.data.extend_from_slice(value);
            }
            self.has_data = true;
            if self.data.len() > LONGEST {
                return Err(TooLong);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pieces: &[&[u8]]) -> Vec<String> {
        let (mut events, mut all) = (Events::default(), Vec::new());
        for piece in pieces {
            events.feed(piece, &mut |data| all.push(data.to_string())).unwrap();
        }
        all
    }

    #[test]
    fn events_are_the_same_however_the_bytes_are_cut() {
        let text = "\u{feff}: keep-alive\r\n\r\ndata: {\"a\": 1}\r\nid: 7\r\n\r\nevent: x\rdata:one\rdata: two\r\rdata\n\n\
                    retry: 5\n\n:\n\ndata: [DONE]\n\ndata: cut off";
        let expected = ["{\"a\": 1}", "one\ntwo", "", "[DONE]"];
        assert_eq!(of(&[text.as_bytes()]), expected);
        let each: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
        assert_eq!(of(&each), expected);
        for at in 0..text.len() {
            let (a, b) = text.as_bytes().split_at(at);
            assert_eq!(of(&[a, b]), expected, "cut at {at}");
        }
    }

    #[test]
    fn a_field_of_an_error_is_an_event_of_it() {
        let text = "data: {}\n\nerror: {\"code\":500,\"message\":\"no\"}\n\ndata: [DONE]\n\n";
        assert_eq!(of(&[text.as_bytes()]), ["{}", "{\"error\":{\"code\":500,\"message\":\"no\"}}", "[DONE]"]);
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced_and_endless_lines_refused() {
        assert_eq!(of(&[b"data: a\xff\xfeb\n\n"]), ["a\u{fffd}\u{fffd}b"]);
        let mut events = Events::default();
        let piece = vec![b'x'; 1 << 20];
        let fed = (0..17).map(|_| events.feed(&piece, &mut |_| ())).collect::<Result<Vec<_>, _>>();
        assert_eq!(fed, Err(TooLong));
        let (mut events, line) = (Events::default(), [b"data: ", piece.as_slice(), b"\n"].concat());
        let fed = (0..17).map(|_| events.feed(&line, &mut |_| ())).collect::<Result<Vec<_>, _>>();
        assert_eq!(fed, Err(TooLong));
    }
}
