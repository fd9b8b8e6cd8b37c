//! Exit codes, and the one place where an error is printed.

use super::colour::colour;
use crate::yaml::YamlError;
use anyhow::anyhow;

/// Exit code of a command that Ctrl-C or TERM ended.
pub(crate) const INTERRUPTED: u8 = 130;

/// Why a command did not succeed. The codes are part of the program's interface.
#[derive(Debug)]
pub(crate) enum Failure {
    /// 1: a fault of ours.
    Internal(anyhow::Error),
    /// 2: bad usage or configuration; the message says what, where and the remedy.
    Usage(anyhow::Error),
    /// 3: the run finished, and some trials failed. The message says how many.
    Partial(String),
    /// 4: no verdict could be reached.
    Inconclusive(String),
    /// 5: tokens got dearer.
    Regression(String),
    /// 6: a budget is exceeded.
    Budget(String),
    /// 74: a file or pipe could not be read or written; names the path.
    Io(anyhow::Error),
    /// 75: somebody else is running there; says who.
    Locked(String),
    /// 130: interrupted; what was finished is kept.
    Interrupted(String),
    /// 1 without a message: everything has been said on the way (`verify` that fails).
    Silent,
}

impl Failure {
    /// A YAML file at fault, drawn with the line.
    pub(crate) fn yaml(e: &YamlError) -> Self {
        let text = anyhow!(e.render(colour()));
        if e.io { Self::Io(text) } else { Self::Usage(text) }
    }

    /// The process's exit code.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Internal(_) | Self::Silent => 1,
            Self::Usage(_) => 2,
            Self::Partial(_) => 3,
            Self::Inconclusive(_) => 4,
            Self::Regression(_) => 5,
            Self::Budget(_) => 6,
            Self::Io(_) => 74,
            Self::Locked(_) => 75,
            Self::Interrupted(_) => INTERRUPTED,
        }
    }

    /// Prints the message on stderr, once.
    pub(crate) fn print(&self) {
        match self {
            Self::Internal(e) | Self::Usage(e) | Self::Io(e) => eprintln!("error: {e:#}"),
            Self::Partial(m)
            | Self::Inconclusive(m)
            | Self::Regression(m)
            | Self::Budget(m)
            | Self::Locked(m)
            | Self::Interrupted(m) => {
                eprintln!("{m}");
            }
            Self::Silent => {}
        }
    }
}
