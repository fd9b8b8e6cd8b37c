//! `centime hardware`.

pub(super) mod history;
mod list;
mod matching;
mod show;

use super::Failure;
use clap::Subcommand;

/// The catalog of devices and the price book: what is there, what is known of it, which entry this machine is, how prices fell.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(list::Arguments),
    Show(show::Arguments),
    Match(matching::Arguments),
    History(history::Arguments),
}

pub(super) fn run(a: &Arguments) -> Result<(), Failure> {
    match &a.command {
        Command::List(a) => list::run(a),
        Command::Show(a) => show::run(a),
        Command::Match(a) => matching::run(a),
        Command::History(a) => history::run(a),
    }
}
