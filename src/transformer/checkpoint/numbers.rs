//! The numbers of a folder's tensors as rows of our parameters, or of a rank's part of them.

use super::Checkpoint;
use super::pieces::Piece;
use super::place::ByExperts;
use crate::transformer::error::SessionError;
use crate::transformer::pass::model::{Numbers, Spec, Split};
use std::io;
use std::ops::Range;

/// Numbers of a transposed matrix that are read at a time.
const AT_ONCE: usize = 1 << 20;

impl Numbers for Checkpoint {
    fn rows(&self, parameter: usize, spec: &Spec, first: usize, out: &mut [f32]) -> Result<(), SessionError> {
        let pieces = &self.pieces[parameter];
        let columns = match spec.split {
            Split::Columns { first, .. } => first..first + spec.columns,
            Split::Whole | Split::Rows(_) => 0..pieces.first().map_or(1, |p| p.place.columns),
        };
        let width = columns.len();
        // Of a vector, rows are its elements.
        let first = first * spec.columns / width;
        let (rows, mut rest) = (first..first + out.len() / width, out);
        for stretch in spec.rows_of_whole(rows) {
            let (here, after) = rest.split_at_mut(stretch.len() * width);
            self.whole_rows(pieces, stretch, &columns, here)?;
            rest = after;
        }
        Ok(())
    }
}

impl Checkpoint {
    /// Rows of a whole parameter, and of each some columns.
    fn whole_rows(
        &self,
        pieces: &[Piece],
        rows: Range<usize>,
        columns: &Range<usize>,
        out: &mut [f32],
    ) -> Result<(), SessionError> {
        for piece in pieces {
            let start = piece.place.row;
            let (from, to) = (rows.start.max(start), rows.end.min(start + piece.place.rows));
            if from < to {
                let out = &mut out[(from - rows.start) * columns.len()..(to - rows.start) * columns.len()];
                self.part(piece, from - start..to - start, columns, out).map_err(|e| {
                    let file = self.files.files[piece.file].path.display();
                    SessionError::Invalid(format!("{file}: tensor {} cannot be read: {e}", piece.name))
                })?;
            }
        }
        Ok(())
    }

    /// Rows of one piece.
    fn part(&self, piece: &Piece, rows: Range<usize>, columns: &Range<usize>, out: &mut [f32]) -> io::Result<()> {
        match piece.place.turned() {
            Some(by) => self.turned(piece, by, rows, columns, out),
            None => self.straight(piece, rows, columns, out),
        }
    }

    fn read(&self, piece: &Piece, first: usize, out: &mut [f32]) -> io::Result<()> {
        self.files.files[piece.file].numbers(&piece.stated, piece.number, first, out)
    }

    /// Rows that are rows in the file: as many together as are neighbours there.
    fn straight(
        &self,
        piece: &Piece,
        mut rows: Range<usize>,
        columns: &Range<usize>,
        mut out: &mut [f32],
    ) -> io::Result<()> {
        let (place, width) = (&piece.place, columns.len());
        while let Some(row) = rows.next() {
            let foreign = place.foreign_row(row);
            let mut together = 1;
            while width == place.columns && !rows.is_empty() && place.foreign_row(rows.start) == foreign + together {
                together += 1;
                rows.next();
            }
            let (here, after) = std::mem::take(&mut out).split_at_mut(together * width);
            self.read(piece, (piece.above + foreign) * place.columns + columns.start, here)?;
            out = after;
        }
        Ok(())
    }

    /// Rows that are columns in the file, of one matrix or of one for each expert.
    fn turned(
        &self,
        piece: &Piece,
        by: ByExperts,
        rows: Range<usize>,
        columns: &Range<usize>,
        out: &mut [f32],
    ) -> io::Result<()> {
        let (width, mut first) = (columns.len(), rows.start);
        let mut numbers = Vec::new();
        while first < rows.end {
            let expert = first / by.rows;
            let end = rows.end.min((expert + 1) * by.rows);
            let places: Vec<usize> = (first..end).map(|row| by.foreign_column(row % by.rows)).collect();
            let low = places.iter().copied().min().unwrap_or(0);
            let span = places.iter().copied().max().unwrap_or(0) + 1 - low;
            // Whole rows of the file lie one after another.
            let together = if span == by.rows { (AT_ONCE / span).max(1) } else { 1 };
            for start in columns.clone().step_by(together) {
                let here = together.min(columns.end - start);
                numbers.resize(here * span, 0.0);
                self.read(piece, (expert * piece.place.columns + start) * by.rows + low, &mut numbers)?;
                for (k, numbers) in numbers.chunks_exact(span).enumerate() {
                    for (row, place) in places.iter().enumerate() {
                        out[(first - rows.start + row) * width + start - columns.start + k] = numbers[place - low];
                    }
                }
            }
            first = end;
        }
        Ok(())
    }
}
