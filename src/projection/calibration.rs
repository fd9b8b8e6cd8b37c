//! The calibration file: constants with what they were fitted to, error bars, and how a program of one's own compares.

use super::constants::{Constants, PRIORS};
use super::device::{Kind, Unit};
use super::published::Quantity;
use super::validate::Bars;
use crate::yaml::{Origin, Sources, Value, YamlError, fields};
use std::fmt::Write;
use std::sync::OnceLock;

/// Everything that a projection is made with.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Calibration {
    /// When and to what it was fitted.
    pub fitted: String,
    pub constants: Constants,
    /// From rows whose source was left out of the fit.
    pub bars: Bars,
    /// How this program compares with a good engine, where it was measured.
    pub own: Vec<Own>,
}

/// One program's time over the projection of a good engine on the same device.
#[derive(Clone, Debug, PartialEq)]
pub struct Own {
    pub quantity: Quantity,
    /// Geometric mean of measured over projected time: 1.2 is a fifth slower than a good engine.
    pub time_ratio: f64,
    /// Half width in ln that holds 90 % of the measured trials.
    pub spread: f64,
    pub trials: u64,
    /// On which device.
    pub device: String,
}

impl Own {
    /// What is taken of it for a device: on a GPU, which has kernels of its own, a program that is faster than a good engine on a
    /// CPU is not assumed to be so as well.
    pub fn time_ratio_on(&self, device: &Unit) -> f64 {
        if device.kind == Kind::Cpu { self.time_ratio } else { self.time_ratio.max(1.0) }
    }
}

const BUILT_IN: &str = include_str!("../../hardware/projection.yaml");
const TOP: &[&str] = &["version", "fitted", "constants", "bars", "own"];
const OWN: &[&str] = &["quantity", "time_ratio", "spread", "trials", "device"];

impl Calibration {
    /// What this program carries.
    ///
    /// # Errors
    /// A fault in our own file, which the tests exclude.
    pub fn built_in() -> Result<&'static Self, &'static YamlError> {
        static ONE: OnceLock<Result<Calibration, YamlError>> = OnceLock::new();
        ONE.get_or_init(|| Self::parse(BUILT_IN, Origin::File { path: "hardware/projection.yaml".into(), place: None }))
            .as_ref()
    }

    /// Reads a file's text; constants that it leaves out have their priors.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn parse(text: &str, origin: Origin) -> Result<Self, YamlError> {
        let mut s = Sources::default();
        let root = s.parse(origin, text)?;
        fields::entries("a calibration", Some(&root), TOP, &[], &s)?;
        match root.get("version").map(|e| &e.node.value) {
            Some(Value::Integer(1)) => {}
            _ => {
                return Err(
                    s.fault(root.place, "version: this program reads version 1; begin the file with `version: 1`")
                );
            }
        }
        let fitted = root.get("fitted").map(|e| fields::text(e, "", &s)).transpose()?.unwrap_or_default();
        let over_zero = |e, section: &str| fields::number(e, section, |x| x > 0.0, "a number above 0", &s);
        let mut constants = Constants::default();
        let known: Vec<&str> = PRIORS.iter().map(|p| p.name).collect();
        let section = root.get("constants").map(|e| &e.node);
        for e in fields::entries("constants", section, &known, &[], &s)? {
            let value = over_zero(e, "constants.")?;
            if let Some(c) = constants.named(&e.key) {
                *c = value;
            }
        }
        let quantities: Vec<&str> = Quantity::ALL.iter().map(|q| q.name()).collect();
        let quantity = |name: &str| Quantity::ALL.into_iter().find(|q| q.name() == name);
        let mut bars = Vec::new();
        for e in fields::entries("bars", root.get("bars").map(|e| &e.node), &quantities, &[], &s)? {
            bars.extend(quantity(&e.key).map(|q| Ok((q, over_zero(e, "bars.")?))).transpose()?);
        }
        let mut own = Vec::new();
        if let Some(e) = root.get("own") {
            let Value::List(items) = &e.node.value else {
                return Err(s.fault(e.node.place, "own: a list is wanted"));
            };
            for node in items {
                fields::entries("own", Some(node), OWN, &[], &s)?;
                let need =
                    |key: &str| node.get(key).ok_or_else(|| s.fault(node.place, format!("own: `{key}` is missing")));
                let named = need("quantity")?;
                let name = fields::text(named, "own.", &s)?;
                let quantity = quantity(&name).ok_or_else(|| {
                    s.fault(named.node.place, format!("own.quantity: one of {} is wanted", quantities.join(", ")))
                })?;
                own.push(Own {
                    quantity,
                    time_ratio: over_zero(need("time_ratio")?, "own.")?,
                    spread: over_zero(need("spread")?, "own.")?,
                    trials: fields::whole(need("trials")?, "own.", 1, &s)?,
                    device: fields::text(need("device")?, "own.", &s)?,
                });
            }
        }
        Ok(Self { fitted, constants, bars: Bars(bars), own })
    }

    /// The file's text.
    pub fn to_yaml(&self) -> String {
        let mut t = String::from(
            "# Constants of the projection: `centime project calibrate` writes this file. Each is one number for all devices of\n\
             # its class, fitted to published measurements with a prior; the line above it says what it means, its prior with\n\
             # the spread of its logarithm, and where the prior is from. No constant belongs to one publication.\n",
        );
        // Writing to a string cannot fail.
        let _ = writeln!(t, "version: 1\nfitted: {:?}\nconstants:", self.fitted);
        for (p, value) in PRIORS.iter().zip(self.constants.values()) {
            let _ = writeln!(t, "  #{} Prior {} x/ {:.2}: {}", p.meaning, plain(p.value), p.spread.exp(), p.source);
            let _ = writeln!(t, "  {}: {}", p.name, plain(value));
        }
        t.push_str(
            "# Half widths, in ln, of the bars that hold 90 % of rows whose source the fit had not seen.\nbars:\n",
        );
        for (q, half) in &self.bars.0 {
            let _ = writeln!(t, "  {}: {half:.3}", q.name());
        }
        if !self.own.is_empty() {
            t.push_str("# Measured over projected time of this program, on the devices where it was measured.\nown:\n");
            for o in &self.own {
                let _ = writeln!(
                    t,
                    "  - {{ quantity: {}, time_ratio: {:.4}, spread: {:.4}, trials: {}, device: {:?} }}",
                    o.quantity.name(),
                    o.time_ratio,
                    o.spread,
                    o.trials,
                    o.device
                );
            }
        }
        t
    }
}

/// Four significant digits, as YAML reads numbers.
fn plain(x: f64) -> String {
    if (1e-3..1e6).contains(&x) {
        let digits = (3 - x.log10().floor() as i32).max(0) as usize;
        let text = format!("{x:.digits$}");
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_string() } else { text }
    } else {
        let text = format!("{x:.3e}");
        // YAML wants a sign: 3.5e+11.
        text.replace("e-", "E").replace('e', "e+").replace('E', "e-")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test() -> Origin {
        Origin::File { path: "test.yaml".into(), place: None }
    }

    #[test]
    fn the_file_goes_there_and_back() {
        let own = vec![Own {
            quantity: Quantity::DecodeTokens,
            time_ratio: 1.25,
            spread: 0.1,
            trials: 7,
            device: "cpu \"x\"".into(),
        }];
        let c = Calibration {
            fitted: "to nothing".into(),
            constants: Constants::default(),
            bars: Bars(vec![(Quantity::TrainingTokens, 0.25)]),
            own,
        };
        let text = c.to_yaml();
        assert_eq!(Calibration::parse(&text, test()).unwrap(), c, "{text}");
        let built_in = Calibration::built_in().unwrap();
        assert!(!built_in.bars.0.is_empty() && !built_in.fitted.is_empty());
    }

    #[test]
    fn a_wrong_file_says_where() {
        for (text, message) in [
            ("fitted: x\n", "version"),
            ("version: 1\nconstants: { matmul_shar: 1 }\n", "matmul_share"),
            ("version: 1\nconstants: { matmul_share: -1 }\n", "a number above 0"),
            ("version: 1\nbars: { decoding: 1 }\n", "decode"),
            ("version: 1\nown: [{ quantity: decode }]\n", "`time_ratio` is missing"),
        ] {
            let e = Calibration::parse(text, test()).unwrap_err().render(false);
            assert!(e.contains(message), "{text}: {e}");
        }
    }
}
