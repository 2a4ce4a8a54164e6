//! Tables that fit into a terminal.
//!
//! If a terminal is too narrow, a table first leaves out empty columns. Then it cuts text, down to [`SHORTEST`]. If that is not
//! enough, it leaves out whole columns, starting with the lowest rank.

use std::borrow::Cow;

use tabled::builder::Builder;
use tabled::grid::util::string::{get_char_width, get_text_width};
use tabled::settings::object::Columns;
use tabled::settings::{Padding, Style as Border, Width};

use super::{session::to_terminal, stdio};

/// How many terminal columns separate two columns of a table.
const GAP: usize = 2;

/// Text is never cut to fewer terminal columns than this.
const SHORTEST: usize = 12;

/// A column, and what a narrow terminal may do to it.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    name: &'static str,
    /// Columns with a lower rank are left out before this one. A column without a rank always stays.
    rank: Option<u8>,
    /// Whether its text may be cut.
    cut: bool,
}

impl Column {
    /// A column that always stays, whole.
    pub const fn always(name: &'static str) -> Column {
        Column { name, rank: None, cut: false }
    }

    /// A column that is shown completely or not at all.
    pub const fn whole(name: &'static str, rank: u8) -> Column {
        Column { name, rank: Some(rank), cut: false }
    }

    /// A column of text, which may be cut.
    pub const fn text(name: &'static str, rank: u8) -> Column {
        Column { name, rank: Some(rank), cut: true }
    }
}

/// The width of each column, or `None` for one that is left out. A longer table is printed in parts that share a layout.
pub type Layout = Vec<Option<usize>>;

/// Rows with the names of their columns.
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub fn new(columns: &[Column]) -> Table {
        Table { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row with one cell for each column. The text must already be safe to show.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Prints the table, at most as wide as the terminal, or in full width if stdout is not a terminal. Prints nothing if there are
    /// no rows.
    pub fn print(self) -> anyhow::Result<()> {
        self.print_part(None).map(|_| ())
    }

    /// Prints a part of a longer table. Only the first part with rows shows the names of the columns.
    pub fn print_part(self, before: Option<Layout>) -> anyhow::Result<Option<Layout>> {
        if self.rows.is_empty() {
            return Ok(before);
        }
        let layout = self.layout(before.as_ref(), terminal_width());
        stdio::print(&self.render(&layout, before.is_none()))?;
        Ok(Some(layout))
    }

    fn layout(&self, before: Option<&Layout>, terminal: Option<usize>) -> Layout {
        let sizes: Vec<Size> = self.columns.iter().enumerate().map(|(at, column)| self.size(at, *column)).collect();
        match before {
            None => fit(&sizes, terminal),
            Some(before) => {
                let shown: Vec<Size> = before
                    .iter()
                    .zip(&sizes)
                    .filter_map(|(width, size)| Some(Size { width: size.width.max((*width)?), rank: None, ..*size }))
                    .collect();
                let mut widths = fit(&shown, terminal).into_iter();
                before.iter().map(|width| width.and_then(|_| widths.next().flatten())).collect()
            }
        }
    }

    fn size(&self, at: usize, column: Column) -> Size {
        let cells = self.rows.iter().filter_map(|row| row.get(at));
        let is_empty = cells.clone().all(|cell| cell.is_empty() || cell == "-");
        let name = get_text_width(column.name);
        let width = cells.map(|cell| get_text_width(cell)).max().unwrap_or(0).max(name);
        let least = if column.cut { width.min(SHORTEST.max(name)) } else { width };
        Size { width, least, rank: column.rank, is_empty }
    }

    fn render(&self, layout: &Layout, with_names: bool) -> String {
        let shown: Vec<(usize, usize)> =
            layout.iter().enumerate().filter_map(|(at, width)| Some((at, (*width)?))).collect();
        let mut builder = Builder::new();
        if with_names {
            builder.push_record(shown.iter().map(|(at, _)| self.columns[*at].name));
        }
        for row in &self.rows {
            let cell = |at: usize| row.get(at).map_or("", String::as_str);
            builder.push_record(shown.iter().map(|(at, width)| cut(cell(*at), *width)));
        }
        let mut table = builder.build();
        table.with(Border::empty()).with(Padding::new(0, GAP, 0, 0));
        for (column, (_, width)) in shown.into_iter().enumerate() {
            table.modify(Columns::one(column), Width::increase(width));
        }
        let mut lines = String::new();
        for line in table.to_string().lines() {
            lines += line.trim_end();
            lines.push('\n');
        }
        lines
    }
}

/// The text, cut to this width if necessary; `…` marks the cut.
fn cut(text: &str, width: usize) -> Cow<'_, str> {
    if get_text_width(text) <= width {
        return Cow::Borrowed(text);
    }
    let mut left = width.saturating_sub(1);
    let fitting = text.chars().take_while(|c| {
        let fits = get_char_width(*c) <= left;
        left = left.saturating_sub(get_char_width(*c));
        fits
    });
    Cow::Owned(fitting.chain(['…']).collect())
}

/// What a column needs.
#[derive(Debug, Clone, Copy)]
struct Size {
    /// The width of its widest cell.
    width: usize,
    /// The least width at which it may be shown.
    least: usize,
    rank: Option<u8>,
    is_empty: bool,
}

/// The layout that fits the terminal.
fn fit(sizes: &[Size], terminal: Option<usize>) -> Layout {
    let mut layout: Layout = sizes.iter().map(|size| Some(size.width)).collect();
    let Some(terminal) = terminal else { return layout };
    let total = |layout: &Layout, width: fn(&Size) -> usize| {
        let shown = layout.iter().zip(sizes).filter(|(width, _)| width.is_some());
        shown.map(|(_, size)| width(size) + GAP).sum::<usize>().saturating_sub(GAP)
    };
    let lowest = |layout: &Layout, may: fn(&Size) -> bool| {
        let shown =
            (0..sizes.len()).filter(|at| layout[*at].is_some() && sizes[*at].rank.is_some() && may(&sizes[*at]));
        shown.min_by_key(|at| sizes[*at].rank)
    };
    while total(&layout, |size| size.width) > terminal
        && let Some(at) = lowest(&layout, |size| size.is_empty)
    {
        layout[at] = None;
    }
    while total(&layout, |size| size.least) > terminal
        && let Some(at) = lowest(&layout, |_| true)
    {
        layout[at] = None;
    }
    // Columns with cut text share the remaining width, one terminal column at a time.
    let mut left = terminal.saturating_sub(total(&layout, |size| size.least));
    for (width, size) in layout.iter_mut().zip(sizes) {
        *width = width.map(|_| size.least);
    }
    while left > 0 {
        let narrow = layout.iter_mut().zip(sizes).filter_map(|(width, size)| width.as_mut().zip(Some(size)));
        let Some((width, _)) = narrow.filter(|(width, size)| **width < size.width).min_by_key(|(width, _)| **width)
        else {
            break;
        };
        *width += 1;
        left -= 1;
    }
    layout
}

/// The width of the terminal, if stdout is one.
fn terminal_width() -> Option<usize> {
    if !to_terminal() {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    (size.ws_col > 0).then_some(usize::from(size.ws_col))
}
