//! Which tensors of a folder make up each parameter: the names that its files have, of those that a family's files are known to have.

use super::file::{Number, Stated};
use super::folder::Files;
use super::names::{self, ExpertNames, LATENT_AND_ROTATED, ROTATED};
use super::place::Place;
use crate::transformer::pass::model::Index;
use crate::transformer::shape::{Family, Shape};
use std::collections::HashSet;

/// What may stand before a name in place of what Hugging Face's library puts there today: files of a model without its head lack
/// it, and those of a model of text and pictures have more.
const BEGINNINGS: &[(&str, &str)] = &[
    ("", ""),
    ("transformer.", ""),
    ("model.", ""),
    ("gpt_neox.", ""),
    ("", "language_model."),
    ("model.", "model.language_model."),
];

/// Ends of names of what older files hold beside parameters: masks, frequencies.
const NO_PARAMETERS: &[&str] =
    &[".attn.bias", ".attn.masked_bias", ".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq"];

/// A tensor that is a parameter, or rows of one.
#[derive(Debug)]
pub(super) struct Piece {
    pub name: String,
    pub place: Place,
    /// Rows of the tensor above those of this parameter.
    pub above: usize,
    /// Which of the folder's files it is in.
    pub file: usize,
    pub stated: Stated,
    pub number: Number,
}

/// A parameter, or rows of one, by its name in the files.
struct Wanted {
    name: String,
    place: Place,
    /// Where the tensor holds rows of two parameters: how many are above these, and how many there are.
    rows: Option<(usize, usize)>,
}

/// The pieces of every parameter, in the order of the index, those of one by their rows.
///
/// # Errors
/// A tensor that is missing, of another shape or format, or of no parameter.
pub(super) fn find(shape: &Shape, index: &Index, files: &Files) -> Result<Vec<Vec<Piece>>, String> {
    let wanted = named(shape, index, files);
    let missing = || wanted.iter().filter(|w| !files.tensors.contains_key(&w.name));
    if let Some(first) = missing().next() {
        return Err(format!(
            "expected tensor {}, found none of that name{}; give the config and all files of one model",
            first.name,
            others(missing().count() - 1, "missing")
        ));
    }
    let known = Known::of(&wanted, index.tied(), shape);
    let surplus = || files.tensors.keys().filter(|name| !known.holds(name));
    if let Some(first) = surplus().next() {
        return Err(format!(
            "expected the parameters of a {} model of {} layers, found tensor {first} beside them{}; give the config and all files of \
             one model",
            shape.family,
            shape.n_layers,
            others(surplus().count() - 1, "surplus")
        ));
    }
    let mut pieces: Vec<Vec<Piece>> = index.specs.iter().map(|_| Vec::new()).collect();
    for wanted in wanted {
        if let Some(tensor) = files.tensors.get(&wanted.name) {
            let number = check(&wanted, &tensor.stated, shape);
            let number = number.map_err(|message| format!("tensor {}: {message}", wanted.name))?;
            let Wanted { name, place, rows } = wanted;
            let (file, stated, above) = (tensor.file, tensor.stated.clone(), rows.map_or(0, |(above, _)| above));
            pieces[place.parameter].push(Piece { name, place, above, file, stated, number });
        }
    }
    pieces.iter_mut().for_each(|all| all.sort_by_key(|p| p.place.row));
    Ok(pieces)
}

fn others(n: usize, what: &str) -> String {
    if n == 0 { String::new() } else { format!(" ({n} more are {what})") }
}

/// The parameters by the names that most of the files' tensors have.
fn named(shape: &Shape, index: &Index, files: &Files) -> Vec<Wanted> {
    let forms: &[ExpertNames] =
        if shape.experts.is_some() { &[ExpertNames::Together, ExpertNames::Apart] } else { &[ExpertNames::Together] };
    let mut best: Option<(usize, Vec<Wanted>)> = None;
    for form in forms {
        let places = names::places(shape, index, *form);
        for (today, there) in BEGINNINGS {
            let names: Vec<Wanted> = places
                .iter()
                .map(|(name, place)| {
                    let tensor = name.strip_suffix(ROTATED).unwrap_or(name);
                    let both = shape.latent.filter(|_| tensor.ends_with(LATENT_AND_ROTATED));
                    let above = if tensor == name { 0 } else { both.map_or(0, |l| l.kv_rank as usize) };
                    let rows = both.map(|l| (above, (l.kv_rank + l.rope) as usize));
                    Wanted { name: renamed(tensor, today, there, files), place: *place, rows }
                })
                .collect();
            let missing = names.iter().filter(|w| !files.tensors.contains_key(&w.name)).count();
            if best.as_ref().is_none_or(|(least, _)| missing < *least) {
                best = Some((missing, names));
            }
        }
    }
    best.map_or_else(Vec::new, |(_, names)| names)
}

fn renamed(name: &str, today: &str, there: &str, files: &Files) -> String {
    let name = name.strip_prefix(today).map_or_else(|| name.to_string(), |rest| format!("{there}{rest}"));
    // GPT-NeoX's head, in files of before version 5 of Hugging Face's library.
    let older = name.replace("lm_head.", "embed_out.");
    if !files.tensors.contains_key(&name) && files.tensors.contains_key(&older) { older } else { name }
}

/// What may be in a folder: parameters, and what no model of text computes with.
struct Known<'a> {
    parameters: HashSet<&'a str>,
    tied: bool,
    /// What the names of the text's part begin with, in a model of text and pictures.
    text: Option<String>,
    /// What is in the names of the layers that predict further tokens, which nothing here does.
    further: Option<String>,
}

impl<'a> Known<'a> {
    fn of(wanted: &'a [Wanted], tied: bool, shape: &Shape) -> Self {
        const TEXT: &str = "language_model.";
        let parameters: HashSet<&str> = wanted.iter().map(|w| w.name.as_str()).collect();
        let before = wanted.iter().find_map(|w| w.name.split_once(TEXT));
        let text = before.map(|(before, _)| format!("{before}{TEXT}"));
        let further = (shape.family == Family::DeepseekV3).then(|| format!(".layers.{}.", shape.n_layers));
        Self { parameters, tied, text, further }
    }

    /// Whether a tensor is a parameter, a mask or frequencies, a tied head's copy of the table, or of a part that is not run.
    fn holds(&self, name: &str) -> bool {
        let head = name.ends_with("lm_head.weight") || name.ends_with("embed_out.weight");
        self.parameters.contains(name)
            || NO_PARAMETERS.iter().any(|end| name.ends_with(end))
            || (self.tied && head)
            || self.further.as_ref().is_some_and(|further| name.contains(further))
            || self.text.as_ref().is_some_and(|text| !name.starts_with(text) && !head)
    }
}

/// The format of a tensor's numbers, where its shape is that of its place.
fn check(wanted: &Wanted, stated: &Stated, shape: &Shape) -> Result<Number, String> {
    let expected = match wanted.rows {
        Some((_, all)) => vec![vec![all, wanted.place.columns]],
        None => wanted.place.dimensions(shape.experts.map(|e| e.count as usize)),
    };
    let found = &stated.shape;
    if !expected.iter().any(|e| e.iter().map(|d| *d as u64).eq(found.iter().copied())) {
        let expected = expected.first().cloned().unwrap_or_default();
        return Err(format!(
            "expected the shape {expected:?}, found {found:?}; give the config and all files of one model"
        ));
    }
    Number::named(&stated.dtype).ok_or_else(|| {
        format!("expected F32, F16 or BF16, found {}; quantised weights are not read: convert them", stated.dtype)
    })
}
