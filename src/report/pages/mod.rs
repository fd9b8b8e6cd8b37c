//! Pages beside the report of a run: a comparison of several, an explanation of a change, the history of prices. Each is a
//! document made once, shown as HTML with its charts, as Markdown, and on the terminal.

mod comparison;
mod explanation;
mod factors;
mod history;
mod law;
mod taught;
mod timeline;
mod to_loss;
mod validation;

use super::document::{Block, Document, Section};
use super::publish::publish;
use super::terminal::{self, Style};
use super::{ReportError, markdown};
pub(crate) use comparison::{Asked, comparison};
pub(crate) use explanation::explanation;
pub(crate) use history::history;
pub(crate) use law::{Fitted, law};
use std::path::{Path, PathBuf};
pub(crate) use timeline::timeline;
pub(crate) use validation::{Predicted, validation};

/// A document with the places it goes to.
#[derive(Debug)]
pub(crate) struct Page {
    /// Name of its files: `compare` gives compare.html and compare.md.
    pub name: &'static str,
    pub(super) document: Document,
}

impl Page {
    /// For the terminal: everything but pictures.
    pub(crate) fn terminal(&self, style: Style) -> String {
        terminal::sections(&self.document.sections, style)
    }

    /// For a comment: everything but pictures and what they are made of.
    pub(crate) fn markdown(&self) -> String {
        let keep = |b: &Block| !matches!(b, Block::Chart(_));
        let sections = self
            .document
            .sections
            .iter()
            .map(|s| Section { blocks: s.blocks.iter().filter(|b| keep(b)).cloned().collect(), ..s.clone() });
        markdown::render(&Document { sections: sections.collect(), ..self.document.clone() })
    }

    /// Writes NAME.html, NAME.md and charts/*.svg into `folder`. Returns the path of the HTML file.
    ///
    /// # Errors
    /// Disk or permissions; each file is whole or the old one stays.
    pub(crate) fn publish(&self, folder: &Path) -> Result<PathBuf, ReportError> {
        publish(&self.document, folder, self.name)
    }
}
