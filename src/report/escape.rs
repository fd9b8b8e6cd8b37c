//! Names and texts of users made harmless: one function for each format, and no renderer writes text past it. (CSV and its
//! formulas are the matter of `results`, which writes it.)

/// For text and attributes of HTML.
pub(super) fn html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(visible(c)),
        }
    }
    out
}

/// For a line of Markdown, in a table or out of it: nothing in the text is markup, a link, HTML, a mention or an issue's number.
/// Characters that mean something only in some places are left alone in the others, so that the source stays readable.
pub(super) fn markdown(text: &str) -> String {
    let chars: Vec<char> = text.trim().chars().map(visible).collect();
    let at = |i: Option<usize>| i.and_then(|i| chars.get(i)).copied();
    let is_word = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    let mut out = String::with_capacity(text.len());
    for (i, &c) in chars.iter().enumerate() {
        let (before, after) = (at(i.checked_sub(1)), at(i.checked_add(1)));
        match c {
            '\\' | '`' | '*' | '[' | ']' | '|' | '~' => out.extend(['\\', c]),
            '_' if !(is_word(before) && is_word(after)) => out.push_str("\\_"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            // An entity is shown as the character and starts no mention, reference or link.
            '@' => out.push_str("&#64;"),
            '#' => out.push_str("&#35;"),
            ':' if after == Some('/') => out.push_str("&#58;"),
            '.' if out.to_ascii_lowercase().ends_with("www") => out.push_str("&#46;"),
            '-' if out.ends_with("GH") => out.push_str("&#45;"),
            // Lists and underlines of headings.
            '-' | '+' | '=' if i == 0 => out.extend(['\\', c]),
            '.' | ')' if i > 0 && after == Some(' ') && chars[..i].iter().all(char::is_ascii_digit) => {
                out.extend(['\\', c]);
            }
            c => out.push(c),
        }
    }
    out
}

/// For code between backticks in Markdown: the fence is longer than any run of backticks in the text.
pub(super) fn markdown_code(text: &str) -> String {
    let clean: String = text.chars().map(visible).collect::<String>().replace('|', "\\|");
    let longest = clean.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest + 1);
    let pad = if clean.starts_with('`') || clean.ends_with('`') { " " } else { "" };
    format!("{fence}{pad}{clean}{pad}{fence}")
}

/// For the terminal and for text in SVG (whose writer escapes markup itself): nothing that a terminal obeys or XML forbids.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(visible).collect()
}

/// The character, or what stands for one that is not to be seen: controls, line ends, and marks that turn the direction of text.
fn visible(c: char) -> char {
    match c {
        '\n' | '\r' | '\t' => ' ',
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' | '\u{feff}' => '\u{fffd}',
        '\u{fffe}' | '\u{ffff}' => '\u{fffd}',
        c if c.is_control() => '\u{fffd}',
        c => c,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_becomes_text() {
        assert_eq!(html("<b a=\"x\">'&'"), "&lt;b a=&quot;x&quot;&gt;&#39;&amp;&#39;");
        assert_eq!(markdown("a|b @you #1 <i>"), "a\\|b &#64;you &#35;1 &lt;i&gt;");
        assert_eq!(markdown("- item"), "\\- item");
        assert_eq!(markdown("[x](http://a)"), "\\[x\\](http&#58;//a)");
        assert_eq!(markdown("1. d_model _x_ www.a.b GH-1"), "1\\. d_model \\_x\\_ www&#46;a.b GH&#45;1");
        assert_eq!(markdown_code("a`b"), "``a`b``");
        assert_eq!(markdown_code("`"), "`` ` ``");
    }

    #[test]
    fn controls_are_seen_and_not_obeyed() {
        assert_eq!(plain("a\x1b[31mb\nc\0"), "a\u{fffd}[31mb c\u{fffd}");
        assert_eq!(plain("user\u{202e}gpj.exe"), "user\u{fffd}gpj.exe");
    }
}
