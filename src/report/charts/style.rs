//! Colours, shapes and letters of charts. Colours are Okabe and Ito's, told apart by the colour-blind; every series has a shape
//! of its own beside its colour.

use plotters::prelude::*;

pub(super) const INK: RGBColor = RGBColor(31, 35, 40);
pub(super) const MUTED: RGBColor = RGBColor(89, 99, 110);
pub(super) const GRID: RGBColor = RGBColor(216, 222, 228);
pub(super) const PAPER: RGBColor = RGBColor(255, 255, 255);

const COLOURS: &[RGBColor] = &[
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(118, 93, 176),
    RGBColor(128, 128, 128),
];

/// The most series that one panel tells apart.
pub(super) const MOST_SERIES: usize = COLOURS.len();

const FAMILY: &str = "system-ui, -apple-system, Segoe UI, Roboto, Noto Sans, DejaVu Sans, sans-serif";

/// Pixels that a picture is wide.
pub(super) const WIDTH: u32 = 860;

/// Pixels of ordinary letters.
pub(super) const LETTERS: f64 = 12.5;

pub(super) fn colour(look: usize) -> RGBColor {
    COLOURS[look % COLOURS.len()]
}

/// Letters of a size in pixels (the SVG writer divides by 1.24).
pub(super) fn letters(pixels: f64, colour: &'static RGBColor) -> TextStyle<'static> {
    TextStyle::from((FAMILY, pixels * 1.24)).color(colour)
}

pub(super) fn bold(pixels: f64, colour: &'static RGBColor) -> TextStyle<'static> {
    let font = FontDesc::new(FontFamily::Name(FAMILY), pixels * 1.24, FontStyle::Bold);
    TextStyle::from(font).color(colour)
}

/// Width of a letter over its height.
const LETTER: f64 = 0.58;

/// Estimated pixels that a text takes; there is no font at hand to measure with, so it is on the wide side.
pub(super) fn width(text: &str, pixels: f64) -> i32 {
    (text.chars().count() as f64 * pixels * LETTER).ceil() as i32
}

/// A text that fits, its end replaced by an ellipsis where it does not.
pub(super) fn fitted(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_string();
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

/// How many characters fit into so many pixels, by [`width`].
pub(super) fn fitting(wide: i32, pixels: f64) -> usize {
    (f64::from(wide.max(0)) / (pixels * LETTER)) as usize
}

/// A text in lines of at most so many characters, broken at spaces; a word that is longer than a line loses its end.
pub(super) fn wrapped(text: &str, most: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= most => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(fitted(word, most)),
        }
    }
    lines
}

/// The outline of a shape around a pixel.
pub(super) fn outline(look: usize, (x, y): (i32, i32)) -> Vec<(i32, i32)> {
    let at = |offsets: &[(i32, i32)]| offsets.iter().map(|(dx, dy)| (x + dx, y + dy)).collect();
    match look % COLOURS.len() {
        1 => at(&[(0, -6), (6, 5), (-6, 5)]),
        2 => at(&[(-5, -5), (5, -5), (5, 5), (-5, 5)]),
        3 => at(&[(0, -7), (6, 0), (0, 7), (-6, 0)]),
        4 => at(&[(0, 6), (6, -5), (-6, -5)]),
        5 => at(&[
            (-2, -6),
            (2, -6),
            (2, -2),
            (6, -2),
            (6, 2),
            (2, 2),
            (2, 6),
            (-2, 6),
            (-2, 2),
            (-6, 2),
            (-6, -2),
            (-2, -2),
        ]),
        6 => at(&[(-3, -6), (3, -6), (6, 0), (3, 6), (-3, 6), (-6, 0)]),
        7 => at(&[(-7, -3), (7, -3), (7, 3), (-7, 3)]),
        // A circle, as a polygon like the others.
        _ => (0..16)
            .map(|i| {
                let angle = f64::from(i) * std::f64::consts::TAU / 16.0;
                (x + (5.5 * angle.cos()).round() as i32, y + (5.5 * angle.sin()).round() as i32)
            })
            .collect(),
    }
}
