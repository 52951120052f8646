//! Answers, as the tokens that they consist of.

const ERROR: u8 = 0xAA;
const LOGIN_ACK: u8 = 0xAD;
const ENV_CHANGE: u8 = 0xE3;
const COLUMNS: u8 = 0x81;
const ROW: u8 = 0xD1;
const DONE: u8 = 0xFD;
const DONE_IN_PROC: u8 = 0xFF;
const DONE_PROC: u8 = 0xFE;
const RETURN_STATUS: u8 = 0x79;

const ROUTING: u8 = 20;

const STATUS_FINAL: u16 = 0;
const STATUS_MORE: u16 = 1;
const STATUS_ERROR: u16 = 2;
const STATUS_COUNT: u16 = 0x10;

/// The type of a column. All take NULL.
#[derive(Clone, Copy)]
pub(crate) enum Column {
    /// BIGINT
    Int,
    /// NVARCHAR(MAX)
    Text,
    /// DATETIME2(3)
    Time,
}

/// A value in a row.
#[derive(Clone, Copy)]
pub(crate) enum Cell<'a> {
    Null,
    Int(i64),
    Text(&'a str),
    /// Milliseconds since 1970.
    Time(u64),
}

/// What a peer says to one request.
#[derive(Clone)]
pub(crate) struct Answer {
    pub(super) tokens: Vec<u8>,
    pub(super) is_refusal: bool,
}

impl Answer {
    /// No results: it was done.
    pub(crate) fn done() -> Self {
        Self::sets(&[])
    }

    /// One result.
    pub(crate) fn rows(columns: &[Column], rows: &[&[Cell<'_>]]) -> Self {
        Self::sets(&[(columns, rows)])
    }

    /// Several results, one after the other.
    pub(crate) fn sets(sets: &[(&[Column], &[&[Cell<'_>]])]) -> Self {
        let mut tokens = Vec::new();
        for (columns, rows) in sets {
            put_columns(&mut tokens, columns);
            for row in *rows {
                tokens.push(ROW);
                assert_eq!(row.len(), columns.len(), "a row has all columns");
                columns.iter().zip(*row).for_each(|(column, cell)| put_cell(&mut tokens, *column, *cell));
            }
            put_done(&mut tokens, DONE_IN_PROC, STATUS_MORE | STATUS_COUNT, rows.len() as u64);
        }
        tokens.push(RETURN_STATUS);
        tokens.extend(0_u32.to_le_bytes());
        put_done(&mut tokens, DONE_PROC, STATUS_FINAL, 0);
        Self { tokens, is_refusal: false }
    }

    /// An error of this number and severity, after which the connection stays.
    pub(crate) fn error(number: u32, severity: u8, text: &str) -> Self {
        let mut tokens = Vec::new();
        put_error(&mut tokens, number, severity, text);
        put_done(&mut tokens, DONE_PROC, STATUS_ERROR, 0);
        Self { tokens, is_refusal: false }
    }

    /// The answer to a login that is accepted.
    pub(super) fn logged_in() -> Self {
        let mut body = vec![1];
        body.extend(0x7400_0004_u32.to_be_bytes());
        put_short(&mut body, "Microsoft SQL Server");
        body.extend([16, 0, 0, 0]);
        let mut tokens = vec![LOGIN_ACK];
        tokens.extend(u16::try_from(body.len()).unwrap().to_le_bytes());
        tokens.extend(body);
        put_done(&mut tokens, DONE, STATUS_FINAL, 0);
        Self { tokens, is_refusal: false }
    }

    /// The answer to a login that is accepted, and sent on to another server.
    pub(crate) fn routed_to(host: &str, port: u16) -> Self {
        let mut value = vec![0];
        value.extend(port.to_le_bytes());
        value.extend(u16::try_from(host.encode_utf16().count()).unwrap().to_le_bytes());
        value.extend(host.encode_utf16().flat_map(u16::to_le_bytes));
        let mut body = vec![ROUTING];
        body.extend(u16::try_from(value.len()).unwrap().to_le_bytes());
        body.extend(value);
        // The old value.
        body.extend([0, 0]);
        let mut tokens = vec![ENV_CHANGE];
        tokens.extend(u16::try_from(body.len()).unwrap().to_le_bytes());
        tokens.extend(body);
        tokens.extend(Self::logged_in().tokens);
        Self { tokens, is_refusal: true }
    }

    /// The answer to a login that is refused.
    pub(super) fn refusal(number: u32, severity: u8, text: &str) -> Self {
        let mut tokens = Vec::new();
        put_error(&mut tokens, number, severity, text);
        put_done(&mut tokens, DONE, STATUS_ERROR, 0);
        Self { tokens, is_refusal: true }
    }
}

fn put_error(tokens: &mut Vec<u8>, number: u32, severity: u8, text: &str) {
    let mut body = number.to_le_bytes().to_vec();
    body.extend([1, severity]);
    body.extend(u16::try_from(text.encode_utf16().count()).unwrap().to_le_bytes());
    body.extend(text.encode_utf16().flat_map(u16::to_le_bytes));
    put_short(&mut body, "peer");
    put_short(&mut body, "");
    body.extend(1_u32.to_le_bytes());
    tokens.push(ERROR);
    tokens.extend(u16::try_from(body.len()).unwrap().to_le_bytes());
    tokens.extend(body);
}

fn put_done(tokens: &mut Vec<u8>, token: u8, status: u16, rows: u64) {
    tokens.push(token);
    tokens.extend(status.to_le_bytes());
    // The command, which nobody looks at.
    tokens.extend([0, 0]);
    tokens.extend(rows.to_le_bytes());
}

/// A text of at most 255 units.
fn put_short(bytes: &mut Vec<u8>, text: &str) {
    bytes.push(u8::try_from(text.encode_utf16().count()).unwrap());
    bytes.extend(text.encode_utf16().flat_map(u16::to_le_bytes));
}

fn put_columns(tokens: &mut Vec<u8>, columns: &[Column]) {
    tokens.push(COLUMNS);
    tokens.extend(u16::try_from(columns.len()).unwrap().to_le_bytes());
    for (number, column) in columns.iter().enumerate() {
        // The user's type; the flag that NULL is taken.
        tokens.extend([0, 0, 0, 0, 1, 0]);
        match column {
            Column::Int => tokens.extend([0x26, 8]),
            Column::Text => tokens.extend([0xE7, 0xFF, 0xFF, 0x09, 0x04, 0xD0, 0x00, 0x34]),
            Column::Time => tokens.extend([0x2A, 3]),
        }
        put_short(tokens, &format!("c{number}"));
    }
}

fn put_cell(tokens: &mut Vec<u8>, column: Column, cell: Cell<'_>) {
    match (column, cell) {
        (Column::Int | Column::Time, Cell::Null) => tokens.push(0),
        (Column::Text, Cell::Null) => tokens.extend(u64::MAX.to_le_bytes()),
        (Column::Int, Cell::Int(number)) => {
            tokens.push(8);
            tokens.extend(number.to_le_bytes());
        }
        (Column::Text, Cell::Text(text)) => {
            let bytes: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
            tokens.extend((bytes.len() as u64).to_le_bytes());
            if !bytes.is_empty() {
                tokens.extend(u32::try_from(bytes.len()).unwrap().to_le_bytes());
                tokens.extend(bytes);
            }
            tokens.extend(0_u32.to_le_bytes());
        }
        (Column::Time, Cell::Time(time)) => {
            const DAY: u64 = 86_400_000;
            tokens.push(7);
            tokens.extend(u32::try_from(time % DAY).unwrap().to_le_bytes());
            // Counted from the year 1.
            let days = u32::try_from(time / DAY + 719_162).unwrap();
            tokens.extend(&days.to_le_bytes()[..3]);
        }
        _ => panic!("a value fits its column"),
    }
}
