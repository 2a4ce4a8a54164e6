//! One durable call as a whole process, the least that could do: opens a store, inserts, ends.

fn main() {
    let store = std::env::args_os().nth(1).expect("the store");
    let db = rusqlite::Connection::open(store).unwrap();
    db.execute_batch("PRAGMA synchronous=FULL").unwrap();
    let insert = "INSERT INTO like_job (service, function, args, run_at, created_at)
        VALUES ('events', 'noop', '[2,7]', 1700000000000, 1700000000000) RETURNING id";
    let id: i64 = db.query_row(insert, [], |row| row.get(0)).unwrap();
    println!("{id}");
}
