//! A plot as SVG.

use super::legend::{Legend, STEP};
use super::plot::{Bar, Join, Mark, Panel, Plot, Series};
use super::scale::Scale;
use super::style::{self, GRID, INK, LETTERS, MUTED, PAPER, WIDTH};
use crate::report::escape;
use plotters::coord::Shift;
use plotters::element::DashedPathElement;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Chart<'a, 'b> = ChartContext<'b, SVGBackend<'a>, Cartesian2d<Scale, Scale>>;

/// Why a chart could not be drawn.
#[derive(Debug, thiserror::Error)]
#[error("drawing a chart: {0}")]
pub struct DrawError(String);

fn fault(e: impl std::fmt::Display) -> DrawError {
    DrawError(e.to_string())
}

const TITLE: u32 = 40;
/// Longest name at an axis, in pixels; the table has the whole.
const LONGEST_TICK: i32 = 280;

/// The picture. `alt` says what it shows to who cannot see it.
///
/// # Errors
/// The drawing library's, none of which is known to happen on a string.
pub(super) fn draw(plot: &Plot, alt: &str) -> Result<String, DrawError> {
    let mut svg = String::new();
    let legends = Legend::of(&plot.panels);
    let height = TITLE + plot.panels.iter().zip(&legends).map(|(p, l)| p.height + l.height()).sum::<u32>();
    {
        let root = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        root.fill(&PAPER).map_err(fault)?;
        text(&root, &escape::plain(&plot.title), (16, 22), &style::bold(15.5, &INK), HPos::Left)?;
        let mut top = TITLE;
        for (panel, legend) in plot.panels.iter().zip(&legends) {
            draw_panel(&root, panel, legend, top)?;
            top += panel.height + legend.height();
        }
        root.present().map_err(fault)?;
    }
    let described = format!(" role=\"img\" aria-label=\"{}\">", escape::html(&escape::plain(alt)));
    Ok(svg.replacen('>', &described, 1))
}

fn text(area: &Area, words: &str, at: (i32, i32), letters: &TextStyle, side: HPos) -> Result<(), DrawError> {
    let placed = letters.pos(Pos::new(side, VPos::Center));
    area.draw(&Text::new(words.to_string(), at, placed)).map_err(fault)
}

fn draw_panel(root: &Area, panel: &Panel, legend: &Legend, top: u32) -> Result<(), DrawError> {
    let most = style::fitting(LONGEST_TICK, LETTERS);
    let y_tick = |y: f64| style::fitted(&escape::plain(&panel.y.scale.tick_label(y)), most);
    let ticks = panel.y.scale.ticks().iter().map(|t| style::width(&y_tick(*t), LETTERS)).max();
    let left = ticks.unwrap_or(0).max(30) + 24;
    let area = root.clone().shrink((0, top), (WIDTH, panel.height));
    let mut chart = ChartBuilder::on(&area)
        .margin_top(26)
        .margin_right(legend.right())
        .margin_left(12)
        .x_label_area_size(50)
        .y_label_area_size(left)
        .build_cartesian_2d(panel.x.scale.clone(), panel.y.scale.clone())
        .map_err(fault)?;
    chart
        .configure_mesh()
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .axis_style(MUTED)
        .label_style(style::letters(LETTERS, &INK))
        .axis_desc_style(style::letters(LETTERS, &MUTED))
        .x_desc(escape::plain(&panel.x.name))
        .x_labels(panel.x.scale.ticks().len().max(1))
        .y_labels(panel.y.scale.ticks().len().max(1))
        .x_label_formatter(&|x| escape::plain(&panel.x.scale.tick_label(*x)))
        .y_label_formatter(&|y| y_tick(*y))
        .draw()
        .map_err(fault)?;
    // The axis' name reads across, above its axis.
    text(root, &escape::plain(&panel.y.name), (16, top as i32 + 12), &style::letters(LETTERS, &MUTED), HPos::Left)?;
    if let Some(r) = &panel.reference {
        let pixels: Vec<_> = r.points.iter().map(|p| chart.backend_coord(p)).collect();
        root.draw(&DashedPathElement::new(pixels, 5, 4, MUTED.stroke_width(1))).map_err(fault)?;
        let (xs, ys) = chart.plotting_area().get_pixel_range();
        let level =
            r.points.first().zip(r.points.last()).filter(|(a, b)| a.1 == b.1).map(|(a, _)| chart.backend_coord(a));
        // In the corner that a rising line does not reach; a level one carries its words, where falling ones come last.
        let (corner, side) = match level {
            Some((_, y)) => ((xs.start + 8, y - 9), HPos::Left),
            None => ((xs.end - 8, ys.end - 14), HPos::Right),
        };
        text(root, &escape::plain(&r.label), corner, &style::letters(LETTERS, &MUTED), side)?;
    }
    draw_bars(root, &chart, &panel.bars)?;
    for series in &panel.series {
        draw_series(root, &chart, series)?;
    }
    draw_notes(root, &chart, &panel.series)?;
    match &legend.beside {
        Some(names) => draw_beside(root, &chart, panel, names, top),
        None => draw_below(root, legend, (top + panel.height) as i32),
    }
}

/// Bars, thin lines from one to the next, and the words at their ends.
fn draw_bars(root: &Area, chart: &Chart, bars: &[Bar]) -> Result<(), DrawError> {
    const HALF: i32 = 9;
    let (xs, _) = chart.plotting_area().get_pixel_range();
    let place = |b: &Bar| {
        let [from, to] = [b.from, b.to].map(|x| chart.backend_coord(&(x, b.row)));
        (from.0, to.0, to.1)
    };
    for pair in bars.windows(2) {
        let ((_, end, y), (start, next_end, below)) = (place(&pair[0]), place(&pair[1]));
        if y != below && (end == start || end == next_end) {
            root.draw(&PathElement::new(vec![(end, y), (end, below)], MUTED.stroke_width(1))).map_err(fault)?;
        }
    }
    for b in bars {
        let (from, to, y) = place(b);
        // A bar of nothing is still seen.
        let (left, right) = (from.min(to), from.max(to).max(from.min(to) + 1));
        let filled = style::colour(b.look).filled();
        root.draw(&Rectangle::new([(left, y - HALF), (right, y + HALF)], filled)).map_err(fault)?;
        let words = escape::plain(&b.note);
        let wide = style::width(&words, LETTERS);
        // Beyond the end that the bar points to; on the other side where there is no room.
        let beyond = if to >= from { right + 8 + wide <= xs.end } else { left - 8 - wide < xs.start };
        let (at, side) = if beyond { (right + 8, HPos::Left) } else { (left - 8, HPos::Right) };
        if !words.is_empty() {
            let behind =
                if beyond { [(at - 3, y - 8), (at + wide, y + 8)] } else { [(at - wide, y - 8), (at + 3, y + 8)] };
            root.draw(&Rectangle::new(behind, PAPER.filled())).map_err(fault)?;
            text(root, &words, (at, y), &style::letters(LETTERS, &INK), side)?;
        }
    }
    Ok(())
}

fn pixel(chart: &Chart, mark: &Mark) -> (i32, i32) {
    chart.backend_coord(&(mark.x.value, mark.y.value))
}

fn draw_series(root: &Area, chart: &Chart, series: &Series) -> Result<(), DrawError> {
    let colour = style::colour(series.look);
    let path: Vec<(i32, i32)> = series.marks.iter().map(|m| pixel(chart, m)).collect();
    match series.line {
        Join::Joined | Join::Curve | Join::ToTheLast => {
            root.draw(&PathElement::new(path, colour.stroke_width(2))).map_err(fault)?
        }
        Join::Dashed => root.draw(&DashedPathElement::new(path, 6, 4, colour.stroke_width(2))).map_err(fault)?,
        Join::None => {}
    }
    let drawn = if series.line == Join::ToTheLast { series.marks.len().saturating_sub(1) } else { 0 };
    for mark in series.marks.iter().skip(drawn) {
        if let Some((low, high)) = mark.y.interval() {
            let ends = [(mark.x.value, low), (mark.x.value, high)].map(|p| chart.backend_coord(&p));
            error_bar(root, ends, (4, 0), &colour)?;
        }
        if let Some((low, high)) = mark.x.interval() {
            let ends = [(low, mark.y.value), (high, mark.y.value)].map(|p| chart.backend_coord(&p));
            error_bar(root, ends, (0, 4), &colour)?;
        }
        if series.line != Join::Curve {
            draw_mark(root, series.look, pixel(chart, mark), mark.filled)?;
        }
    }
    Ok(())
}

/// A line from end to end with caps; nothing where the mark would hide it.
fn error_bar(root: &Area, [a, b]: [(i32, i32); 2], cap: (i32, i32), colour: &RGBColor) -> Result<(), DrawError> {
    if (a.0 - b.0).abs().max((a.1 - b.1).abs()) < 8 {
        return Ok(());
    }
    let thin = colour.stroke_width(1);
    let line = |from, to| root.draw(&PathElement::new(vec![from, to], thin)).map_err(fault);
    line(a, b)?;
    for end in [a, b] {
        line((end.0 - cap.0, end.1 - cap.1), (end.0 + cap.0, end.1 + cap.1))?;
    }
    Ok(())
}

fn draw_mark(root: &Area, look: usize, at: (i32, i32), filled: bool) -> Result<(), DrawError> {
    let colour = style::colour(look);
    let mut outline = style::outline(look, at);
    let inside = if filled { colour } else { PAPER };
    root.draw(&Polygon::new(outline.clone(), inside.filled())).map_err(fault)?;
    outline.extend(outline.first().copied());
    let edge = if filled { PAPER.stroke_width(1) } else { colour.stroke_width(2) };
    root.draw(&PathElement::new(outline, edge)).map_err(fault)
}

/// A rectangle that something stands in: left, top, right, bottom.
type Place = (i32, i32, i32, i32);

fn meets(a: &Place, b: &Place) -> bool {
    a.0 < b.2 && b.0 < a.2 && a.1 < b.3 && b.1 < a.3
}

/// Words beside marks, where there is room for them; without room they are left to the table.
fn draw_notes(root: &Area, chart: &Chart, series: &[Series]) -> Result<(), DrawError> {
    let (xs, ys) = chart.plotting_area().get_pixel_range();
    let mut taken: Vec<Place> = series
        .iter()
        .filter(|s| s.line != Join::Curve)
        .flat_map(|s| &s.marks)
        .map(|m| pixel(chart, m))
        .map(|(x, y)| (x - 7, y - 7, x + 7, y + 7))
        .collect();
    for (line, mark) in
        series.iter().flat_map(|s| s.marks.iter().map(|m| (s.line, m))).filter(|(_, m)| !m.note.is_empty())
    {
        let words = style::fitted(&escape::plain(&mark.note), 44);
        let (x, y) = pixel(chart, mark);
        let wide = style::width(&words, LETTERS);
        let mut beside =
            [(12, 0), (12, -13), (12, 13), (-12 - wide, 0), (-12 - wide, -13), (-12 - wide, 13), (-wide / 2, -20)];
        if line != Join::None {
            // Beside a mark its line goes on; above there is room.
            beside.swap(0, 1);
        }
        let place = |(dx, dy): (i32, i32)| (x + dx, y + dy - 8, x + dx + wide, y + dy + 8);
        let inside = |p: &Place| p.0 >= xs.start && p.2 <= xs.end && p.1 >= ys.start && p.3 <= ys.end;
        let free = |p: &Place| inside(p) && !taken.iter().any(|t| meets(t, p));
        if let Some(at) = beside.into_iter().map(place).find(free) {
            // Lines of the grid do not run through the words.
            let behind = [(at.0 - 2, at.1 + 1), (at.2, at.3 - 1)];
            root.draw(&Rectangle::new(behind, PAPER.filled())).map_err(fault)?;
            text(root, &words, (at.0, (at.1 + at.3) / 2), &style::letters(LETTERS, &INK), HPos::Left)?;
            taken.push(at);
        }
    }
    Ok(())
}

/// The series' names beside the panel, each as near to the end of its line as its neighbours leave room.
fn draw_beside(root: &Area, chart: &Chart, panel: &Panel, names: &[String], top: u32) -> Result<(), DrawError> {
    let (xs, ys) = chart.plotting_area().get_pixel_range();
    let mut ends: Vec<(i32, usize)> = panel
        .series
        .iter()
        .enumerate()
        .filter(|(i, _)| !names[*i].is_empty())
        .map(|(i, s)| (s.marks.last().map_or(ys.start, |m| pixel(chart, m).1), i))
        .collect();
    ends.sort_unstable();
    let bottom = ys.end - STEP * ends.len() as i32 + STEP / 2;
    let mut next = top as i32 + 26;
    for (k, (y, i)) in ends.into_iter().enumerate() {
        let at = y.min(bottom + STEP * k as i32).max(next);
        next = at + STEP;
        draw_mark(root, panel.series[i].look, (xs.end + 20, at), true)?;
        text(root, &names[i], (xs.end + 32, at), &style::letters(LETTERS, &INK), HPos::Left)?;
    }
    Ok(())
}

/// The series' names below the panel.
fn draw_below(root: &Area, legend: &Legend, top: i32) -> Result<(), DrawError> {
    for line in &legend.below {
        if let Some(look) = line.mark {
            draw_mark(root, look, (line.at.0, top + line.at.1), true)?;
        }
        let (x, y) = line.words_at();
        text(root, &line.text, (x, top + y), &style::letters(LETTERS, &INK), HPos::Left)?;
    }
    Ok(())
}
