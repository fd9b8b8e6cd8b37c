//! The command line: a file per subcommand; parse, call, print, exit code. The only room with clap and anyhow.

mod check;
mod colour;
mod compare;
mod compile;
mod cost;
mod data;
mod doctor;
pub(crate) mod exit;
mod explain;
mod hardware;
mod history;
mod import;
mod init;
mod launcher;
mod load;
mod noise;
mod output;
mod plan;
mod price;
mod project;
mod report;
mod run;
mod scaling;
mod schema;
mod shell;
mod sizes;
mod stdout;
mod table;
mod trial;
mod verify;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use exit::Failure;
use std::process::ExitCode;

/// What a token costs: sweeps a transformer over shapes, batches and devices, measures it, prices it, reports it.
#[derive(Debug, Parser)]
#[command(name = "centime", version, propagate_version = true, max_term_width = 100)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Arguments),
    Plan(plan::Arguments),
    Report(report::Arguments),
    Compare(compare::Arguments),
    Check(check::Arguments),
    Explain(explain::Arguments),
    Cost(cost::Arguments),
    Project(project::Arguments),
    Data(data::Arguments),
    Scaling(scaling::Arguments),
    Hardware(hardware::Arguments),
    History(history::Arguments),
    Import(import::Arguments),
    Verify(verify::Arguments),
    Doctor(doctor::Arguments),
    Init(init::Arguments),
    Schema(schema::Arguments),
    Completions(shell::Completions),
    Man(shell::Man),
    #[command(hide = true)]
    Trial(trial::Arguments),
}

/// Commands that write files and say how the program is used; they have a heading of their own in the help.
const ASIDE: [&str; 4] = ["init", "schema", "completions", "man"];

/// The arguments with the help in two headings, which clap has for options and not for commands.
fn with_headings() -> clap::Command {
    let mut command = Arguments::command();
    let (head, literal) = (*command.get_styles().get_header(), *command.get_styles().get_literal());
    let about = |c: &clap::Command| c.get_about().map(ToString::to_string).unwrap_or_default();
    let line = |name: &&str| {
        let said = command.find_subcommand(name).map(about).unwrap_or_default();
        format!("  {literal}{name:<11}{literal:#}  {said}")
    };
    let aside: Vec<String> = ASIDE.iter().map(line).collect();
    let template = format!(
        "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{head}Commands:{head:#}\n{{subcommands}}\n\n\
         {head}Files and shell:{head:#}\n{}\n\n{head}Options:{head:#}\n{{options}}",
        aside.join("\n")
    );
    for name in ASIDE {
        command = command.mut_subcommand(name, |c| c.hide(true));
    }
    command.help_template(template)
}

/// Parses the arguments, runs the subcommand, prints what went wrong, and turns it into an exit code.
pub fn main() -> ExitCode {
    let matches = with_headings().get_matches();
    let arguments = Arguments::from_arg_matches(&matches).unwrap_or_else(|e| e.exit());
    let outcome = match arguments.command {
        Command::Run(a) => run::run(&a),
        Command::Plan(a) => plan::run(&a),
        Command::Report(a) => report::run(&a),
        Command::Compare(a) => compare::run(&a),
        Command::Check(a) => check::run(&a),
        Command::Explain(a) => explain::run(&a),
        Command::Cost(a) => cost::run(&a),
        Command::Project(a) => project::run(&a),
        Command::Data(a) => data::run(&a),
        Command::Scaling(a) => scaling::run(&a),
        Command::Hardware(a) => hardware::run(&a),
        Command::History(a) => history::run(&a),
        Command::Import(a) => import::run(&a),
        Command::Verify(a) => verify::run(&a),
        Command::Doctor(a) => doctor::run(&a),
        Command::Init(a) => init::run(&a),
        Command::Schema(a) => schema::run(&a),
        Command::Completions(a) => shell::completions(&a),
        Command::Man(a) => shell::man(&a),
        Command::Trial(a) => trial::run(&a),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.print();
            ExitCode::from(failure.code())
        }
    }
}
