//! A document written into a folder: NAME.html, NAME.md and the charts of both.

use super::document::{self, Document};
use super::{ReportError, charts, html, markdown};
use crate::results::ResultsError;
use crate::results::files::replace_text;
use std::path::{Path, PathBuf};

/// Writes them, and takes away charts that no page of the folder shows any more. Returns the path of the HTML file.
///
/// # Errors
/// Disk or permissions; each file is whole or the old one stays.
pub(super) fn publish(document: &Document, folder: &Path, name: &str) -> Result<PathBuf, ReportError> {
    let pictures = folder.join("charts");
    std::fs::create_dir_all(&pictures).map_err(ResultsError::io(&pictures, "making the folder"))?;
    for c in document::charts(&document.sections) {
        replace_text(&pictures.join(format!("{}.svg", c.name)), &c.svg)?;
    }
    replace_text(&folder.join(format!("{name}.md")), &markdown::render(document))?;
    let page = folder.join(format!("{name}.html"));
    replace_text(&page, &html::render(document))?;
    remove_stale(folder, &pictures)?;
    Ok(page)
}

/// Charts of an earlier page would be taken for this one's. Pages of other names may stand in the same folder: theirs stay.
fn remove_stale(folder: &Path, pictures: &Path) -> Result<(), ReportError> {
    let shown: Vec<String> = files(folder)?
        .iter()
        .filter(|p| p.extension().is_some_and(|e| e == "md"))
        .filter_map(|p| std::fs::read_to_string(p).ok())
        .collect();
    for path in files(pictures)? {
        let Some(name) = path.file_stem().and_then(|n| n.to_str()) else { continue };
        let ours = path.extension().is_some_and(|e| e == "svg") && charts::is_ours(name);
        if ours && !shown.iter().any(|page| page.contains(&format!("charts/{name}.svg"))) {
            std::fs::remove_file(&path).map_err(ResultsError::io(&path, "removing an old chart"))?;
        }
    }
    Ok(())
}

fn files(folder: &Path) -> Result<Vec<PathBuf>, ReportError> {
    let entries = std::fs::read_dir(folder).map_err(ResultsError::io(folder, "reading the folder"))?;
    Ok(entries.filter_map(|e| Some(e.ok()?.path())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::document::{Block, Chart, Section};

    fn page(charts: &[&str]) -> Document {
        let one = |name: &&str| {
            let [title, caption, alt] = [""; 3].map(String::from);
            Block::Chart(Chart { name: (*name).into(), title, caption, alt, svg: "<svg></svg>".into() })
        };
        let section = Section { id: "a", title: "A", blocks: charts.iter().map(one).collect() };
        let [title, description, foot] = [""; 3].map(String::from);
        Document { title, description, sections: vec![section], foot }
    }

    #[test]
    fn charts_that_no_page_shows_any_more_go_and_all_others_stay() {
        let folder = tempfile::tempdir().unwrap();
        let there = |name: &str| folder.path().join("charts").join(name).is_file();
        publish(&page(&["memory", "tornado"]), folder.path(), "report").unwrap();
        publish(&page(&["tornado", "break-even"]), folder.path(), "compare").unwrap();
        std::fs::write(folder.path().join("charts/my-own.svg"), "").unwrap();
        publish(&page(&["waterfall"]), folder.path(), "compare").unwrap();
        assert!(there("memory.svg") && there("tornado.svg") && there("waterfall.svg") && there("my-own.svg"));
        assert!(!there("break-even.svg"), "only the earlier comparison had it");
        publish(&page(&["memory"]), folder.path(), "report").unwrap();
        assert!(!there("tornado.svg") && there("memory.svg"));
    }
}
