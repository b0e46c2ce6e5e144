//! `--list-hosts` and `--list-tasks`: what is in a playbook, without connecting to anything.

use std::fmt::Write as _;

use crate::diagnostic::{Result, exit_code};
use crate::plan::{Planner, Play, Step};
use crate::report::printer::Printer;
use crate::report::summary::count;
use crate::secrets::Secrets;

/// Shows the hosts of each play.
pub fn hosts(planner: &dyn Planner, secrets: &Secrets, printer: Printer) -> u8 {
    for play in planner.plays() {
        printer.text(&secrets.mask(&heading(play)));
        for (number, batch) in play.batches().iter().enumerate() {
            for host in batch {
                let batch = if play.serial.is_empty() { String::new() } else { format!("  batch {}", number + 1) };
                printer.text(&format!("  {}{batch}\n", planner.host_name(*host)));
            }
        }
    }
    exit_code::DONE
}

/// Shows the tasks of each play, as far as they can be known without asking a host.
pub fn tasks(planner: &mut dyn Planner, secrets: &Secrets, printer: Printer) -> Result<u8> {
    for (index, play) in planner.plays().to_vec().iter().enumerate() {
        printer.text(&secrets.mask(&heading(play)));
        for &host in &play.hosts {
            planner.begin(index, host)?;
            let step = planner.resume(host);
            // One piece of text a host: there may be thousands.
            let mut text = format!("  {}\n", planner.host_name(host));
            for queued in planner.queued() {
                for task in planner.take_queue(queued)? {
                    let role = task.role.as_ref().map_or_else(String::new, |role| format!("{role}: "));
                    let on = if task.host == host { String::new() } else { format!("  on {}", planner.host_name(task.host)) };
                    let tags = if task.tags.is_empty() { String::new() } else { format!("  [{}]", task.tags.join(", ")) };
                    let skipped = task.skipped.as_ref().map_or_else(String::new, |why| format!("  (skipped: {why})"));
                    let place = format!("{}:{}", task.place.file.display(), task.place.line);
                    let _ = writeln!(text, "    {role}{}{on}{tags}{skipped}  {place}", task.wire.name);
                }
            }
            let failed = match step {
                Step::Failed(error) => Some(error),
                Step::NeedsResult { host: asked, .. } | Step::NeedsFacts { host: asked } | Step::Gather { host: asked } => {
                    let who = if asked == host { "the host" } else { planner.host_name(asked) };
                    let _ = writeln!(text, "    … what follows depends on what {who} answers");
                    None
                }
                Step::NeedsTasks => {
                    text.push_str("    … what follows waits until these tasks are done, and may depend on how they end\n");
                    None
                }
                Step::Once { key, host: other } => {
                    let _ = writeln!(text, "    … what follows waits for `once(\"{key}\")` of {}", planner.host_name(other));
                    None
                }
                Step::Barrier { name } => {
                    let _ = writeln!(text, "    … what follows waits at barrier `{name}`");
                    None
                }
                Step::ForecastEnded(error) => {
                    let _ = writeln!(text, "    … what follows cannot be known: {}", error.message);
                    None
                }
                Step::Ended | Step::Finishing => None,
            };
            printer.text(&secrets.mask(&text));
            if let Some(error) = failed {
                return Err(error);
            }
        }
        for &host in &play.hosts {
            planner.abandon(host, crate::diagnostic::Diagnostic::host("the tasks are only listed"));
        }
    }
    Ok(exit_code::DONE)
}

fn heading(play: &Play) -> String {
    format!("{}  ({})\n", play.name, count(play.hosts.len(), "host", "hosts"))
}
