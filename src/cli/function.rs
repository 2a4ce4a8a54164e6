//! `asyncq function`.

use clap::{Args, Subcommand};
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::format::{FormatOptions, Record};
use super::function_options::DefinitionOptions;
use super::hook_options::{NoHookOptions, print_hooks};
use super::input_options::{NoInputOptions, or_nothing, print_inputs};
use super::output::{self, FieldList};
use super::session::{Session, now};
use super::table::{Column, Table};
use super::{exit, service::print_cancelled};
use crate::commands::function::Typed;
use crate::commands::queue::Queue;
use crate::domain::function::{self, FunctionName, Inputs};
use crate::domain::hook::HookKind;
use crate::domain::lane::Lane;
use crate::domain::removal::IfWaiting;
use crate::domain::retry_policy::RetryPolicy;
use crate::domain::service::{Added, ServiceName};
use crate::domain::size::write_size;
use crate::domain::time::write_span;
use crate::error::{Error, Kind};

/// Functions: the names that you can call, and the program behind each
#[derive(Debug, Subcommand)]
pub enum Function {
    /// Add a function; adding the same one again changes nothing
    ///
    /// asyncq starts the program for each call, in the directory in which you add the function. The program gets the arguments
    /// of the call as its last arguments, and the whole call as a line of JSON on stdin. It may write a result, as JSON, to
    /// the file that `$ASYNCQ_RESULT` names. Exit code 0 means done, 75 means try again, any other means failed.
    ///
    /// asyncq starts the program of a worker once, and sends it one call after another (docs/protocol.md). Functions with the
    /// same program, site and environment share their workers.
    Add {
        #[command(flatten)]
        name: Name,
        #[command(flatten)]
        options: DefinitionOptions,
        /// The program and its first arguments; there is no shell unless you name one, as in sh -c '...'
        #[arg(last = true, required = true, value_names = ["PROGRAM", "ARG"])]
        command: Vec<String>,
    },
    /// List functions
    List {
        /// The service [default: all]
        service: Option<String>,
        #[command(flatten)]
        format: FormatOptions,
    },
    /// Show one function
    Show {
        #[command(flatten)]
        name: Name,
        #[command(flatten)]
        format: FormatOptions,
    },
    /// Change a function; waiting calls run with the new definition
    Set {
        #[command(flatten)]
        name: Name,
        #[command(flatten)]
        options: DefinitionOptions,
        /// The program is a command: asyncq starts it for each call
        #[arg(long, conflicts_with_all = ["worker", "calls_per_worker", "idle", "memory_growth"])]
        no_worker: bool,
        /// Remove a recorded environment variable
        #[arg(long, value_name = "NAME")]
        unset_env: Vec<String>,
        /// Remove the time limit
        #[arg(long, conflicts_with = "timeout")]
        no_timeout: bool,
        /// Try a failed call again only after conflicts and crashes
        #[arg(long, conflicts_with_all = ["retries", "backoff", "retry_on", "no_retry_on"])]
        no_retries: bool,
        #[command(flatten)]
        no_inputs: NoInputOptions,
        #[command(flatten)]
        no_hooks: NoHookOptions,
        /// Calls are in no lane, unless they name one
        #[arg(long, conflicts_with = "lane")]
        no_lane: bool,
        /// Everybody who may call functions may call it
        #[arg(long, conflicts_with = "local")]
        no_local: bool,
        /// A pipe each for stdout and stderr again
        #[arg(long, conflicts_with = "merge")]
        no_merge: bool,
        /// The new program and its first arguments
        #[arg(last = true, value_names = ["PROGRAM", "ARG"])]
        command: Vec<String>,
    },
    /// Replace workers, for example after a deploy; each ends after its current call
    ///
    /// asyncq replaces a worker by itself when its function changes, or its program, or another file that its command line
    /// names. Use this command after a change of anything else that the worker has loaded. No call that is claimed from now on
    /// runs in a worker that was started before.
    Reload {
        /// The service [default: all]
        service: Option<String>,
        /// The function [default: all of the service]
        #[arg(value_name = "FUNCTION")]
        name: Option<String>,
    },
    /// Remove a function, but keep jobs that have ended
    Remove {
        #[command(flatten)]
        name: Name,
        /// Cancel its waiting jobs
        #[arg(long)]
        force: bool,
    },
}

/// A service and a function.
#[derive(Debug, Args)]
pub struct Name {
    /// The service
    service: String,
    /// The function's name: letters, digits, `_`, `.`, `:` and `-`
    #[arg(value_name = "FUNCTION")]
    name: String,
}

impl Name {
    fn parse(&self) -> anyhow::Result<(ServiceName, FunctionName)> {
        Ok((ServiceName::parse(&self.service)?, FunctionName::parse(&self.name)?))
    }
}

impl Function {
    /// Runs the command.
    pub fn run(self, session: &Session) -> anyhow::Result<u8> {
        match self {
            Function::Add { name, options, command } => {
                let (service, name) = name.parse()?;
                let typed = options.typed(command)?;
                let mut queue = session.open()?;
                let added = queue.add_function(&service, &name, &typed, &session.caller)?;
                tell_env_file(session, &mut queue, (&service, &name), &typed)?;
                session.verbose(&match added {
                    Added::New => format!("added function `{name}` to service `{service}`"),
                    Added::Same => format!("function `{name}` of service `{service}` already exists"),
                });
            }
            Function::List { service, format } => {
                let format = format.format()?;
                let service = service.as_deref().map(ServiceName::parse).transpose()?;
                let functions = session.open()?.functions(service.as_ref())?;
                let records: Vec<_> = functions.iter().map(FunctionView).collect();
                format.print_all(&records, || table(&functions))?;
            }
            Function::Show { name, format } => {
                let format = format.format()?;
                let (service, name) = name.parse()?;
                let function = session.open()?.function(&service, &name)?;
                format.print_one(&FunctionView(&function), || show(&function))?;
            }
            Function::Set {
                name,
                options,
                no_worker,
                unset_env,
                no_timeout,
                no_lane,
                no_local,
                no_merge,
                no_retries,
                no_inputs,
                no_hooks,
                command,
            } => {
                let (service, name) = name.parse()?;
                let mut typed = Typed { unset_env, ..options.typed(command)? };
                if no_worker {
                    typed.worker.is = Some(false);
                }
                if no_timeout {
                    typed.timeout = Some(None);
                }
                typed.policy.retry.none = no_retries;
                no_inputs.add_to(&mut typed.inputs);
                no_hooks.add_to(&mut typed.policy.hooks);
                let policy = &mut typed.policy;
                policy.is_local = policy.is_local.or(no_local.then_some(false));
                policy.is_merged = policy.is_merged.or(no_merge.then_some(false));
                if no_lane {
                    typed.policy.lane = Some(None);
                }
                if typed == Typed::default() {
                    return Err(Error::new(Kind::Usage, "`asyncq function set` needs something to change")
                        .with_hint("give an option, or a new program after `--`")
                        .into());
                }
                let mut queue = session.open()?;
                let had_secrets = has_secrets(&mut queue, &service, &name);
                queue.set_function(&service, &name, &typed, &session.caller)?;
                if had_secrets && !has_secrets(&mut queue, &service, &name) {
                    tell_shown(session, &service, &name);
                }
                tell_env_file(session, &mut queue, (&service, &name), &typed)?;
                if let Some(Some(_)) = &typed.inputs.takes {
                    for (schedule, why) in queue.unfit_schedules(&service, &name)? {
                        let set = format!("`asyncq schedule set {schedule}` with the call changes it");
                        session.info_with_hint(&format!("schedule `{schedule}` no longer makes calls: {why}"), &set);
                    }
                }
            }
            Function::Reload { service, name } => {
                let service = service.as_deref().map(ServiceName::parse).transpose()?;
                let name = name.as_deref().map(FunctionName::parse).transpose()?;
                let count = session.open()?.reload_functions(service.as_ref(), name.as_ref())?;
                let functions = if count == 1 { "function" } else { "functions" };
                session.verbose(&format!("replacing the workers of {count} {functions}"));
            }
            Function::Remove { name, force } => {
                let (service, name) = name.parse()?;
                let waiting = if force { IfWaiting::Cancel } else { IfWaiting::Refuse };
                let mut queue = session.open()?;
                let had_secrets = has_secrets(&mut queue, &service, &name);
                let removed = queue.remove_function(&service, &name, waiting)?;
                print_cancelled(session, &removed);
                if had_secrets {
                    tell_shown(session, &service, &name);
                }
            }
        }
        Ok(exit::DONE)
    }
}

fn has_secrets(queue: &mut Queue, service: &ServiceName, name: &FunctionName) -> bool {
    queue.function(service, name).is_ok_and(|function| !function.definition.inputs.secret.is_empty())
}

/// Says that nothing is secret any longer, because only the function says what is secret.
fn tell_shown(session: &Session, service: &ServiceName, name: &FunctionName) {
    session.info_with_hint(
        &format!("jobs of `{service}` `{name}` are shown with the arguments that were secret"),
        &format!("`asyncq job clean --service {service} --function {name}` removes those that have ended"),
    );
}

/// Prints why the function's new file of variables cannot be used now. The file may come later.
fn tell_env_file(
    session: &Session,
    queue: &mut Queue,
    (service, name): (&ServiceName, &FunctionName),
    typed: &Typed,
) -> Result<(), Error> {
    if let (Some(Some(_)), Some(flaw)) = (&typed.inputs.env_file, queue.broken_env_file(service, name)?) {
        session.info(&format!("calls of `{service}` `{name}` cannot run yet: {flaw}"));
    }
    Ok(())
}

/// What programs read about a function. `timeout` is in seconds; `worker` is null for a command, `args` and `stdin` for a worker.
struct FunctionView<'a>(&'a function::Function);

impl Record for FunctionView<'_> {
    const COLUMNS: &'static str = "service,name,command,site,env,timeout,worker.calls_per_worker,worker.idle,worker.memory_growth,\
                                   args,stdin,lane,retries,backoff,retry_on,no_retry_on,conflicts,local,merge,on_error,on_success,takes,secret,env_file,created_at";
}

impl Serialize for FunctionView<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let function::Function { service, name, definition, created_at } = self.0;
        let call_format = definition.worker.is_none().then_some(definition.call_format);
        let mut object = serializer.serialize_map(None)?;
        object.serialize_entry("service", service.as_str())?;
        object.serialize_entry("name", name.as_str())?;
        object.serialize_entry("command", &definition.command)?;
        object.serialize_entry("site", &definition.site)?;
        object.serialize_entry("env", &definition.env)?;
        object.serialize_entry("timeout", &definition.timeout.map(|timeout| timeout.as_secs_f64()))?;
        object.serialize_entry("worker", &definition.worker.as_ref().map(WorkerView))?;
        object.serialize_entry("args", &call_format.map(|format| format.args().as_str()))?;
        object.serialize_entry("stdin", &call_format.map(|format| format.stdin().as_str()))?;
        object.serialize_entry("lane", &definition.policy.lane.as_ref().map(Lane::as_str))?;
        let RetryPolicy { retries, backoff, not_on, conflicts, .. } = &definition.policy.retry;
        let is_retried = *retries > 0;
        object.serialize_entry("retries", retries)?;
        object.serialize_entry("backoff", &is_retried.then(|| backoff.to_string()))?;
        object.serialize_entry("retry_on", &is_retried.then(|| definition.policy.retry.on_text()))?;
        object.serialize_entry("no_retry_on", &not_on.as_ref().map(ToString::to_string))?;
        object.serialize_entry("conflicts", conflicts)?;
        object.serialize_entry("local", &definition.policy.is_local)?;
        object.serialize_entry("merge", &definition.policy.is_merged)?;
        for kind in HookKind::ALL {
            let hook = definition.policy.hooks.get(kind).map(ToString::to_string);
            object.serialize_entry(kind.as_str(), &hook)?;
        }
        let Inputs { takes, secret, env_file } = &definition.inputs;
        object.serialize_entry("takes", &takes.as_ref().map(ToString::to_string))?;
        object.serialize_entry("secret", &secret.words().collect::<Vec<_>>())?;
        object.serialize_entry("env_file", env_file)?;
        object.serialize_entry("created_at", &created_at.to_string())?;
        object.end()
    }
}

/// What programs read about the limits of a worker. `idle` is in seconds, `memory_growth` in bytes.
struct WorkerView<'a>(&'a function::WorkerLimits);

impl Serialize for WorkerView<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(None)?;
        object.serialize_entry("calls_per_worker", &self.0.calls)?;
        object.serialize_entry("idle", &self.0.idle().as_secs_f64())?;
        object.serialize_entry("memory_growth", &self.0.growth)?;
        object.end()
    }
}

fn table(functions: &[function::Function]) -> Table {
    let have_signatures = functions.iter().any(|it| it.definition.inputs.takes.is_some());
    let mut columns = vec![
        Column::whole("SERVICE", 5),
        Column::always("FUNCTION"),
        Column::whole("RUNS", 0),
        Column::text("PROGRAM", 4),
        Column::text("SITE", 1),
        Column::whole("TIMEOUT", 2),
    ];
    if have_signatures {
        columns.insert(3, Column::text("TAKES", 3));
    }
    let mut table = Table::new(&columns);
    for it in functions {
        let takes = it.definition.inputs.takes.as_ref().map(|takes| or_nothing(&takes.to_string()));
        let mut cells = vec![
            it.service.to_string(),
            it.name.to_string(),
            if it.definition.worker.is_some() { "worker" } else { "command" }.to_owned(),
            output::text(&output::command_line(&it.definition.command)),
            output::text(&it.definition.site),
            output::or_dash(it.definition.timeout.map(write_span).as_deref()),
        ];
        if have_signatures {
            cells.insert(3, output::or_dash(takes.as_deref()));
        }
        table.row(cells);
    }
    table
}

fn show(function: &function::Function) -> anyhow::Result<()> {
    let definition = &function.definition;
    let mut sheet = FieldList::new();
    sheet.line("service", function.service.to_string());
    sheet.line("function", function.name.to_string());
    sheet.line("command", output::text(&output::command_line(&definition.command)));
    sheet.line("site", output::text(&definition.site));
    for (name, value) in &definition.env {
        sheet.line("env", output::text(&format!("{name}={value}")));
    }
    if let Some(limits) = &definition.worker {
        let mut text = format!("ends after {} without a call", write_span(limits.idle()));
        if let Some(calls) = limits.calls {
            text += &format!(", or {calls} calls");
        }
        if let Some(growth) = limits.growth {
            text += &format!(", or with {} more memory", write_size(growth));
        }
        sheet.line("worker", text);
    } else {
        sheet.line("args", definition.call_format.args().as_str().to_owned());
        sheet.line("stdin", definition.call_format.stdin().as_str().to_owned());
    }
    sheet.line("timeout", output::or_dash(definition.timeout.map(write_span).as_deref()));
    print_inputs(&mut sheet, function);
    if let Some(lane) = &definition.policy.lane {
        sheet.line("lane", output::text(lane.as_str()));
    }
    let retry = &definition.policy.retry;
    if retry.retries > 0 {
        sheet.line("retries", format!("{}, with pauses of {}", retry.retries, retry.backoff));
        sheet.line("retry on", retry.on_text());
    }
    if let Some(not_on) = &retry.not_on {
        sheet.line("not on", not_on.to_string());
    }
    if retry.conflicts != RetryPolicy::default().conflicts {
        sheet.line("conflicts", format!("tried {} in all", output::count(retry.conflicts.get(), "time", "times")));
    }
    if definition.policy.is_local {
        sheet.line("local", "only for programs that open the store themselves");
    }
    if definition.policy.is_merged {
        sheet.line("merge", "stdout and stderr are one stream");
    }
    print_hooks(&mut sheet, &definition.policy.hooks);
    let created = function.created_at;
    sheet.line("created", format!("{}  {}", output::moment(created), output::relative(created, now())));
    sheet.print()
}
