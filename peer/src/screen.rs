//! Where results and events are shown: as text or JSON, on a terminal that may be in the middle of a line, down a pipe, or to a
//! program that asked through the socket.

use std::io;

use serde_json::{Map, Value, json};
use shoal_console::wrapped;
use shoal_prompt::{LinePrinter, Output, ShownBars};
use shoal_web::Said;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio_util::sync::CancellationToken;

use crate::reply::Reply;
use shoal_session::events::Event;

/// Where things are shown. Cheap to clone.
#[derive(Clone)]
pub struct Screen {
    form: Form,
    output: Output,
    /// The program that asked, if one did.
    caller: Option<mpsc::Sender<Said>>,
}

/// What results look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Text at a prompt: everything on the terminal.
    Prompt,
    /// Text for a script: results on stdout, errors and events on stderr.
    Text,
    /// JSON: everything on stdout, one object per line.
    Json,
    /// What a program that asked through the socket gets.
    Caller,
}

impl Screen {
    /// A screen of that form.
    #[must_use]
    pub fn new(form: Form) -> Self {
        Self { form, output: Output::default(), caller: None }
    }

    /// A screen that is a program which asked for one command.
    pub(crate) fn of(caller: mpsc::Sender<Said>) -> Self {
        Self { form: Form::Caller, output: Output::default(), caller: Some(caller) }
    }

    /// What results look like.
    #[must_use]
    pub fn form(&self) -> Form {
        self.form
    }

    /// From now on events are shown by `printer`.
    pub fn print_above(&self, printer: LinePrinter) {
        self.output.print_above(printer);
    }

    /// Draws bars; lines go above them until they are dropped.
    pub(crate) fn show_bars(&self) -> ShownBars {
        self.output.show_bars()
    }

    /// Shows the result of a command.
    ///
    /// # Errors
    /// When stdout is closed.
    pub fn result(&self, command: &str, result: &Result<Reply, String>) -> io::Result<()> {
        match (self.form, result) {
            (Form::Json, result) => self.out(&json_result(command, result)),
            // The program gets the result whole, from `daemon`.
            (Form::Caller, _) => Ok(()),
            (_, Ok(reply)) if reply.text.is_empty() => Ok(()),
            (_, Ok(reply)) => self.out(&reply.shown()),
            (Form::Prompt, Err(error)) => self.output.err(&wrapped(&format!("error: {error}"))),
            (_, Err(error)) => self.output.err(&format!("error: {error}")),
        }
    }

    /// Shows an event.
    ///
    /// # Errors
    /// When the output is closed.
    pub fn event(&self, event: &Event) -> io::Result<()> {
        match self.form {
            Form::Json => self.out(&json!(event).to_string()),
            Form::Text => self.output.err(&event.to_string()),
            Form::Prompt => self.output.above(&event.to_string()),
            // Programs read events by themselves.
            Form::Caller => Ok(()),
        }
    }

    /// Shows what the user should know about this start; scripts that read JSON do not.
    ///
    /// # Errors
    /// When the output is closed.
    pub(crate) fn note(&self, text: &str) -> io::Result<()> {
        match self.form {
            Form::Json => Ok(()),
            Form::Prompt | Form::Text => self.output.err(&wrapped(text)),
            Form::Caller => self.say(Said::Note(text.to_owned())),
        }
    }

    /// Shows a line on stdout.
    ///
    /// # Errors
    /// When stdout is closed.
    pub fn out(&self, text: &str) -> io::Result<()> {
        match &self.caller {
            Some(_) => self.say(Said::Line(text.to_owned())),
            None => self.output.out(text),
        }
    }

    /// Says something to the program that asked. One that reads slowly misses what is said before the result.
    ///
    /// # Errors
    /// When it is gone.
    pub(crate) fn say(&self, said: Said) -> io::Result<()> {
        match self.caller.as_ref().map(|caller| caller.try_send(said)) {
            Some(Err(TrySendError::Closed(_))) => Err(io::ErrorKind::BrokenPipe.into()),
            _ => Ok(()),
        }
    }

    /// Shows events until `end`, then those that are still waiting.
    pub async fn show_events(self, mut events: Receiver<Event>, end: CancellationToken) {
        loop {
            let event = tokio::select! {
                () = end.cancelled() => break,
                event = events.recv() => event,
            };
            let shown = match event {
                Ok(event) => self.event(&event),
                Err(RecvError::Lagged(count)) => self.missed(count),
                Err(RecvError::Closed) => return,
            };
            // The reader closed the output and does not want to know.
            if shown.is_err() {
                return;
            }
        }
        loop {
            match events.try_recv() {
                Ok(event) if self.event(&event).is_ok() => {}
                Err(TryRecvError::Lagged(_)) => {}
                _ => return,
            }
        }
    }

    fn missed(&self, count: u64) -> io::Result<()> {
        match self.form {
            Form::Json => self.out(&json!({ "event": "missed", "count": count }).to_string()),
            Form::Text => self.output.err(&format!("{count} messages were lost")),
            Form::Prompt => self.output.above(&format!("{count} messages were lost")),
            Form::Caller => Ok(()),
        }
    }
}

fn json_result(command: &str, result: &Result<Reply, String>) -> String {
    Value::Object(object(command, result)).to_string()
}

/// The result of a command, as one object.
pub(crate) fn object(command: &str, result: &Result<Reply, String>) -> Map<String, Value> {
    let mut object = match result {
        Ok(reply) => reply.fields.clone(),
        Err(error) => Map::from_iter([("error".to_owned(), error.as_str().into())]),
    };
    object.insert("command".to_owned(), command.into());
    object.insert("ok".to_owned(), result.is_ok().into());
    object
}
