//! Names that break formats that do not escape, and what each format must still be.

/// Forty of them.
pub(crate) const NAMES: &[&str] = &[
    "<script>alert(1)</script>",
    "</td></tr></table>",
    "\" onmouseover=\"alert(1)",
    "' onload='alert(1)'",
    "<img src=x onerror=alert(1)>",
    "</svg><script>1</script>",
    "<!-- comment",
    "]]>",
    "&amp;&lt;&#60;",
    "{{7*7}}${7*7}",
    "a|b|c",
    "a\nb",
    "a\r\n\r\nb",
    "\t=1+1",
    "=1+1",
    "+cmd|' /C calc'!A0",
    "-2+3",
    "@SUM(1)",
    "=HYPERLINK(\"http://a.b\",\"x\")",
    "@everyone",
    "@org/team",
    "fixes #1",
    "org/repo#12",
    "GH-12",
    "www.example.org",
    "https://example.org",
    "![x](https://example.org/a.png)",
    "[x](javascript:alert(1))",
    "# heading",
    "```\ncode",
    "`a` ``b``",
    "**bold** _it_ ~~no~~",
    "- item",
    "1. item",
    "\x1b[31mred\x1b[0m",
    "\x1b]0;title\x07",
    "a\0b",
    "user\u{202e}gpj.exe",
    "a,b;\"c\"\"d",
    "\u{feff}e\u{301}\u{1f4b8} 名",
];

fn text_of(html: &str) -> Vec<&str> {
    html.split('<').skip(1).map(|tag| tag.split(['>', ' ', '\n']).next().unwrap_or("")).collect()
}

/// Only tags that a report is made of, no handler, no control character.
pub(crate) fn assert_html(page: &str, name: &str) {
    // Style and script are the program's own.
    let without: String = ["style", "script"].iter().fold(page.to_string(), |page, part| {
        let (before, rest) = page.split_once(&format!("<{part}>")).unwrap();
        let (_, after) = rest.split_once(&format!("</{part}>")).unwrap();
        format!("{before}{after}")
    });
    let known = [
        "!doctype",
        "html",
        "head",
        "meta",
        "title",
        "body",
        "main",
        "header",
        "h1",
        "h2",
        "p",
        "nav",
        "a",
        "section",
        "strong",
        "code",
        "dl",
        "div",
        "dd",
        "dt",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "figure",
        "figcaption",
        "ul",
        "li",
        "details",
        "summary",
        "pre",
        "footer",
        "svg",
        "rect",
        "text",
        "line",
        "polyline",
        "polygon",
        "circle",
    ];
    for tag in text_of(&without) {
        assert!(known.contains(&tag.trim_start_matches('/')), "<{tag}> from {name:?}");
    }
    for tag in without.split('<').skip(1) {
        // Outside the quotes of its attributes a tag has no handler.
        let inside: String = tag.split('>').next().unwrap_or("").split('"').step_by(2).collect();
        assert!(!inside.contains(" on"), "{inside:?} from {name:?}");
    }
    assert!(!page.chars().any(|c| c.is_control() && c != '\n'), "{name:?}");
}

/// No line, link, mention, reference or tag that is not the report's.
pub(crate) fn assert_markdown(text: &str, name: &str) {
    for line in text.lines() {
        let table_cells = line.replace("\\|", "").matches('|').count();
        assert!(line.starts_with("| ") || table_cells == 0 || line.contains('`'), "{line:?} from {name:?}");
        let heading = line.starts_with('#');
        assert!(!heading || line.starts_with("# fixture") || line.starts_with("## "), "{line:?} from {name:?}");
        let outside_code = line.split('`').step_by(2).collect::<String>().replace("\\]", "").replace("\\[", "");
        for banned in [
            "<script",
            "<img",
            "http://",
            "https://",
            "www.",
            "@everyone",
            "@org",
            "@SUM",
            "#1",
            "GH-1",
            "](java",
            "![x]",
        ] {
            assert!(!outside_code.contains(banned), "{banned} in {line:?} from {name:?}");
        }
    }
    assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{name:?}");
}

/// As many records as rows, none of which a spreadsheet would compute.
pub(crate) fn assert_csv(text: &str, rows: usize, name: &str) {
    let (mut records, mut quoted, mut start) = (Vec::new(), false, 0);
    for (i, c) in text.char_indices() {
        match c {
            '"' => quoted = !quoted,
            '\n' if !quoted => {
                records.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    assert_eq!((records.len(), quoted), (rows, false), "{name:?}");
    for field in records.iter().flat_map(|r| r.split(',')) {
        let first = field.trim_start_matches('"').chars().next();
        let number = field.parse::<f64>().is_ok();
        assert!(number || !matches!(first, Some('=' | '+' | '-' | '@' | '\t')), "{field:?} from {name:?}");
    }
}

/// Every tag is closed in its order, and nothing is in it that XML forbids.
pub(crate) fn assert_balanced(svg: &str, name: &str) {
    let mut open: Vec<&str> = Vec::new();
    for tag in svg.split('<').skip(1) {
        let (inside, after) = tag.split_once('>').unwrap_or_else(|| panic!("{tag:?} of {name:?} is not closed"));
        let word = inside.split([' ', '/']).find(|w| !w.is_empty()).unwrap_or("");
        if inside.starts_with('/') {
            assert_eq!(open.pop(), Some(word), "{name:?}");
        } else if !inside.ends_with('/') {
            open.push(word);
        }
        assert!(!after.contains('>'), "{after:?} from {name:?}");
    }
    assert!(open.is_empty(), "{open:?} from {name:?}");
    assert!(!svg.chars().any(|c| c.is_control() && c != '\n'), "{name:?}");
    for entity in svg.split('&').skip(1) {
        let known = ["lt;", "gt;", "amp;", "quot;", "apos;", "#39;"];
        assert!(known.iter().any(|k| entity.starts_with(k)), "&{:.8} from {name:?}", entity);
    }
}

/// Nothing that a terminal obeys.
pub(crate) fn assert_terminal(text: &str, name: &str) {
    assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?} from {name:?}");
    assert!(!text.contains('\u{202e}'), "{name:?}");
}
