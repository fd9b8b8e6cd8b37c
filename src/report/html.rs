//! A document as one HTML file that needs nothing else: style, script and charts are in it.

use super::document::{Block, Chart, Document, Figure, Row, Section, Span, Table};
use super::escape::html as text;
use std::fmt::Write;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("sort.js");

/// Lines that a cell of words takes at the most, up to [`WIDEST`].
const LINES: usize = 3;
/// Characters of words that stay on one line.
const ONE_LINE: usize = 24;
/// Characters of the widest column of words that a table is made wide for.
const WIDEST: usize = 60;
/// Characters that a line may lack at its end, since the next word is longer.
const RAGGED: usize = 8;
/// Characters that a cell's padding is as wide as.
const PADDING: usize = 3;

/// The whole file.
pub(super) fn render(d: &Document) -> String {
    let mut out = String::new();
    let title = text(&d.title);
    // Writing to a string cannot fail.
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<meta name=\"generator\" content=\"centime\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n<header>\n<h1>{title}</h1>\n"
    );
    if !d.description.trim().is_empty() {
        let _ = writeln!(out, "<p class=\"description\">{}</p>", text(&d.description));
    }
    let links: Vec<String> =
        d.sections.iter().map(|s| format!("<a href=\"#{}\">{}</a>", text(s.id), text(s.title))).collect();
    let _ = writeln!(out, "<nav>{}</nav>\n</header>", links.join(" "));
    d.sections.iter().for_each(|s| section(&mut out, s));
    let _ = write!(
        out,
        "<footer><p>{}</p></footer>\n</main>\n<script>\n{SCRIPT}</script>\n</body>\n</html>\n",
        text(&d.foot)
    );
    out
}

fn section(out: &mut String, s: &Section) {
    let _ = writeln!(out, "<section id=\"{}\">\n<h2>{}</h2>", text(s.id), text(s.title));
    // Charts that follow each other stand side by side where there is room.
    for group in s.blocks.chunk_by(|a, b| matches!((a, b), (Block::Chart(_), Block::Chart(_)))) {
        if matches!(group, [Block::Chart(_), ..]) {
            out.push_str("<div class=\"charts\">\n");
            group.iter().for_each(|b| block(out, b));
            out.push_str("</div>\n");
        } else {
            group.iter().for_each(|b| block(out, b));
        }
    }
    out.push_str("</section>\n");
}

fn block(out: &mut String, b: &Block) {
    let _ = match b {
        Block::Paragraph(spans) => writeln!(out, "<p>{}</p>", inline(spans)),
        Block::Answer(spans) => writeln!(out, "<p class=\"answer\">{}</p>", inline(spans)),
        Block::Figures(figures) => {
            let all: String = figures.iter().map(figure).collect();
            writeln!(out, "<dl class=\"figures\">\n{all}</dl>")
        }
        Block::Table(t) => {
            table(out, t);
            Ok(())
        }
        Block::Chart(c) => {
            chart(out, c);
            Ok(())
        }
        Block::List(items) => {
            let all: String = items.iter().map(|i| format!("<li>{}</li>\n", inline(i))).collect();
            writeln!(out, "<ul>\n{all}</ul>")
        }
        Block::Folded { summary, blocks } => {
            let _ = writeln!(out, "<details>\n<summary>{}</summary>", text(summary));
            blocks.iter().for_each(|b| block(out, b));
            writeln!(out, "</details>")
        }
        Block::Command(c) => writeln!(out, "<pre><code>{}</code></pre>", text(c)),
    };
}

fn inline(spans: &[Span]) -> String {
    spans
        .iter()
        .map(|s| match s {
            Span::Plain(t) => text(t),
            Span::Strong(t) => format!("<strong>{}</strong>", text(t)),
            Span::Code(t) => format!("<code>{}</code>", text(t)),
        })
        .collect()
}

fn figure(f: &Figure) -> String {
    format!(
        "<div><dd class=\"value\">{}</dd><dt>{}</dt><dd class=\"note\">{}</dd></div>\n",
        text(&f.value),
        text(&f.label),
        text(&f.note)
    )
}

/// The least width of a column of words, in characters, which many columns beside it would else press into a stripe; a table that is too
/// wide then is moved to and fro.
fn least_width(t: &Table, column: usize) -> usize {
    let cells = t.rows.iter().filter_map(|r| r.cells.get(column));
    let longest = cells.map(|c| c.text.chars().count()).max().unwrap_or(0);
    let in_lines = longest.div_ceil(LINES) + RAGGED;
    longest.min(in_lines.clamp(ONE_LINE, WIDEST))
}

fn table(out: &mut String, t: &Table) {
    out.push_str("<div class=\"scroll\"><table>\n<thead><tr>");
    for (i, c) in t.columns.iter().enumerate() {
        let how = if c.numeric {
            " class=\"number\"".to_string()
        } else {
            format!(" style=\"min-width: {}ch\"", least_width(t, i) + PADDING)
        };
        let _ = write!(out, "<th scope=\"col\"{how}>{}</th>", text(&c.heading));
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    t.rows.iter().for_each(|r| row(out, t, r));
    out.push_str("</tbody>\n</table></div>\n");
    if !t.caption.is_empty() {
        let _ = writeln!(out, "<p class=\"caption\">{}</p>", text(&t.caption));
    }
}

fn row(out: &mut String, t: &Table, r: &Row) {
    out.push_str(if r.highlighted { "<tr class=\"highlighted\">" } else { "<tr>" });
    for (c, column) in r.cells.iter().zip(&t.columns) {
        let class = if column.numeric { " class=\"number\"" } else { "" };
        let sort = c.sort.filter(|x| x.is_finite()).map_or(String::new(), |x| format!(" data-sort=\"{x}\""));
        let _ = write!(out, "<td{class}{sort}>{}</td>", text(&c.text));
    }
    out.push_str("</tr>\n");
}

fn chart(out: &mut String, c: &Chart) {
    // The SVG's own writer has escaped its text.
    let _ = writeln!(
        out,
        "<figure id=\"{}\">\n{}<figcaption>{}</figcaption>\n</figure>",
        text(&c.name),
        c.svg,
        text(&c.caption)
    );
}

#[cfg(test)]
mod tests {
    use super::super::document::{Cell, Column};
    use super::*;

    #[test]
    fn a_column_of_words_is_wide_enough_for_three_lines_and_no_wider_than_can_be_read() {
        let of = |words: &str, times: usize| {
            let mut t = Table::new(vec![Column::number("n"), Column::text("note")]);
            t.rows = ["", words]
                .iter()
                .map(|w| Row::new(vec![Cell::number("1", 1.0), Cell::text(w.repeat(times))]))
                .collect();
            t
        };
        assert_eq!([2, 5, 18, 60].map(|times| least_width(&of("words ", times), 1)), [12, 24, 44, 60]);
        let mut page = String::new();
        table(&mut page, &of("words ", 18));
        assert!(page.contains("<th scope=\"col\" class=\"number\">n</th>"), "{page}");
        assert!(page.contains("<th scope=\"col\" style=\"min-width: 47ch\">note</th>"), "{page}");
    }
}
