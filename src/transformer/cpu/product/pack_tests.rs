//! Panels of every path against the plain ones.

use super::Precision;
use super::pack::*;
use crate::amx::{SIDE, TILE};
use half::bf16;

#[test]
fn panels_of_every_path_are_those_of_the_plain_one() {
    let data: Vec<f32> = (0..70 * 90).map(|i| ((i * 7919) % 1009) as f32 / 37.0 - 13.0).collect();
    for (item_stride, depth_stride) in [(90, 1), (1, 70), (90, 2)] {
        let source = Source { data: &data, item_stride, depth_stride };
        for (width, items, first_item) in [(14, 14, 0), (14, 9, 3), (32, 32, 5), (32, 17, 16), (6, 1, 2), (16, 0, 0)] {
            for (first_depth, depth) in [(0, 1), (0, 33), (3, 40), (4, 16), (0, 32)] {
                let s = SourceTile { first_item, items, first_depth, depth };
                for precision in [Precision::F32, Precision::Rounded, Precision::Bf16] {
                    let len = width * words(depth, precision);
                    let (mut fast, mut slow) = (vec![9.0; len], vec![8.0; len]);
                    pack(&mut fast, width, source, s, precision);
                    match precision {
                        Precision::F32 => plain(&mut slow, width, source, s, |x| x),
                        Precision::Rounded => {
                            plain(&mut slow, width, source, s, |x| bf16::from_f32(x).to_f32());
                        }
                        Precision::Bf16 => plain_pairs(&mut slow, width, source, s),
                    }
                    let bits = |v: &[f32]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                    assert_eq!(bits(&fast), bits(&slow), "{s:?} {width} {item_stride} {depth_stride} {precision:?}");
                }
            }
        }
    }
}

#[test]
fn panels_in_tiles_hold_the_words_of_the_other_order() {
    let data: Vec<f32> = (0..70 * 90).map(|i| ((i * 7919) % 1009) as f32 / 37.0 - 13.0).collect();
    for (item_stride, depth_stride) in [(90, 1), (1, 70), (90, 2)] {
        let source = Source { data: &data, item_stride, depth_stride };
        for (items, first_item, first_depth, depth) in [
            (32, 0, 0, 32),
            (32, 5, 3, 40),
            (17, 16, 0, 31),
            (1, 2, 4, 33),
            (32, 30, 2, 43),
            (0, 0, 0, 32),
            (9, 1, 1, 0),
        ] {
            let s = SourceTile { first_item, items, first_depth, depth };
            let len = SIDE * words(depth, Precision::Bf16);
            let (mut tiled, mut by_word) = (vec![9.0; len], vec![8.0; len]);
            pack_tiles(&mut tiled, source, s);
            plain_pairs(&mut by_word, SIDE, source, s);
            let whole = words(depth, Precision::Bf16) / TILE * TILE;
            for (at, want) in by_word.iter().enumerate() {
                let (k, row) = (at / SIDE, at % SIDE);
                let place = if k < whole { k / TILE * SIDE * TILE + row * TILE + k % TILE } else { at };
                assert_eq!(tiled[place].to_bits(), want.to_bits(), "{s:?} {item_stride}: word {k} of row {row}");
            }
        }
    }
}
