-- The store of asyncq in SQLite 3.37 or later, schema 6. Every table is `asyncq_*`: it may live beside your own tables.
-- Times are milliseconds since 1970-01-01 UTC. Clients add rows to asyncq_service, asyncq_function and asyncq_job, as
-- docs/sql.md says, and change only what it says; asyncq does the rest.

CREATE TABLE asyncq_schema (
  version     INTEGER NOT NULL,                                       -- an older store is upgraded, a newer one refused;
                                                                      -- negative while asyncq itself writes as a client
  clock       INTEGER NOT NULL DEFAULT 0,                             -- the latest time that a processor saw, to a minute
  older       INTEGER NOT NULL DEFAULT 0,                             -- the newest processor at the last upgrade: those up
                                                                      -- to it release no calls that depend on theirs
  used        INTEGER NOT NULL DEFAULT 7,                             -- what each look at the store asks for: 1 calls that
                                                                      -- expire, 2 schedules, 4 calls that need others,
                                                                      -- 8 services that keep jobs for some time
  paused      TEXT,                                                   -- why no call runs, may be ''; NULL: calls run
  pruned_at   INTEGER NOT NULL DEFAULT 0,                             -- when a round for old jobs was last over,
  pruned_to   INTEGER NOT NULL DEFAULT 0                              -- and how far the rounds are
) STRICT;
INSERT INTO asyncq_schema (version, used) VALUES (6, 0);

CREATE TABLE asyncq_service (
  name        TEXT NOT NULL PRIMARY KEY CONSTRAINT asyncq_service_name
              CHECK (name GLOB '[a-z0-9]*' AND name NOT GLOB '*[^a-z0-9._-]*' AND length(name) <= 255),
  concurrency INTEGER NOT NULL DEFAULT 1                              -- how many of its calls may be running at once
              CONSTRAINT asyncq_service_concurrency CHECK (concurrency > 0),
  paused      INTEGER NOT NULL DEFAULT 0                              -- 1: accepts calls and runs none
              CONSTRAINT asyncq_service_paused CHECK (paused IN (0, 1)),
  created_at  INTEGER NOT NULL
              DEFAULT (CAST(round((julianday('now') - 2440587.5) * 86400000) AS INTEGER)),
  lane_width  INTEGER NOT NULL DEFAULT 1                              -- how many calls of one lane may run at once
              CONSTRAINT asyncq_service_lane_width CHECK (lane_width > 0),
  rate        TEXT,                                                   -- how often calls may start, JSON; NULL: no limit
  rate_at     INTEGER NOT NULL DEFAULT 0,                             -- when the rate is free again, in microseconds
  on_error    TEXT,                                                   -- SERVICE/FUNCTION, called when a job ends so; for
  on_success  TEXT,                                                   -- functions that have no hook of their own
  paused_why  TEXT,                                                   -- the reason that was given for its pause
  keep        INTEGER                                                 -- how many milliseconds a job stays that has ended
              CONSTRAINT asyncq_service_keep CHECK (keep > 0),
  keep_errors INTEGER                                                 -- and one that ended in an error; NULL: for ever
              CONSTRAINT asyncq_service_keep_errors CHECK (keep_errors > 0)
) STRICT, WITHOUT ROWID;

CREATE TABLE asyncq_function (
  service     TEXT NOT NULL REFERENCES asyncq_service (name) ON DELETE CASCADE,
  name        TEXT NOT NULL CONSTRAINT asyncq_function_name
              CHECK (name GLOB '[A-Za-z_]*' AND name NOT GLOB '*[^A-Za-z0-9_.:-]*' AND length(name) <= 255),
  command     TEXT NOT NULL,                                          -- program and first arguments, a JSON array
  site        TEXT NOT NULL,                                          -- the directory of definition; it runs there
  env         TEXT NOT NULL DEFAULT '{}',                             -- recorded environment variables, a JSON object
  timeout     INTEGER                                                 -- how many milliseconds an attempt may take
              CONSTRAINT asyncq_function_timeout CHECK (timeout > 0),
  worker      TEXT,                                                   -- how its program is kept, JSON; NULL: not at all
  created_at  INTEGER NOT NULL
              DEFAULT (CAST(round((julianday('now') - 2440587.5) * 86400000) AS INTEGER)),
  args        TEXT NOT NULL DEFAULT 'words'                           -- words: the program's last arguments; or stdin:
              CONSTRAINT asyncq_function_args                         -- the call comes on standard input alone
              CHECK (args = 'words' OR args = 'stdin'),
  stdin       TEXT NOT NULL DEFAULT 'call'                            -- call: its standard input is the call; none: empty
              CONSTRAINT asyncq_function_stdin CHECK (stdin = 'call' OR stdin = 'none' AND args = 'words'),
  generation  INTEGER NOT NULL DEFAULT 0,                             -- workers of an older one end after their call
  retry       TEXT,                                                   -- when an attempt is repeated, JSON; NULL: only
                                                                      -- after a conflict or a crash
  lane        TEXT,                                                   -- of calls that name none; {principal} in it is
                                                                      -- the principal of the call
  on_error    TEXT,                                                   -- SERVICE/FUNCTION, called when a job ends so
  on_success  TEXT,
  merge       INTEGER NOT NULL DEFAULT 0                              -- 1: one pipe takes its stdout and its stderr
              CONSTRAINT asyncq_function_merge CHECK (merge IN (0, 1)),
  takes       TEXT,                                                   -- its signature, as `function add --takes` reads it;
  args_min    INTEGER,                                                -- how many positional arguments that is at least,
  args_max    INTEGER,                                                -- and at most; NULL: any number
  secret      TEXT,                                                   -- the arguments that asyncq hides, a JSON array
                                                                      -- of names and positions from 1
  env_file    TEXT,                                                   -- a file of variables, read at each start
  local       INTEGER NOT NULL DEFAULT 0                              -- 1: only a program that opens this file may call it
              CONSTRAINT asyncq_function_local CHECK (local IN (0, 1)),
  PRIMARY KEY (service, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE asyncq_job (
  id          INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT              -- never used again
              CONSTRAINT asyncq_job_id CHECK (id > 0),
  service     TEXT NOT NULL,                                          -- a client sets these two
  function    TEXT NOT NULL,
  args        TEXT DEFAULT '[]',                                      -- and may set these eight; a JSON array
  kwargs      TEXT DEFAULT '{}',                                      -- a JSON object; both are NULL when in asyncq_large
  principal   TEXT,                                                   -- on whose behalf; NULL: nobody is logged in
  site        TEXT,                                                   -- run here instead of in the function's site
  state       TEXT NOT NULL DEFAULT 'queued' CONSTRAINT asyncq_job_state
              CHECK (state = 'queued' OR state = 'processing' OR state = 'completed' OR state = 'delayed'
                     OR state = 'held' OR state = 'error' OR state = 'cancelled' OR state = 'blocked'),
  priority    INTEGER NOT NULL DEFAULT 0,                             -- smaller runs first
  run_at      INTEGER NOT NULL                                        -- when it is due
              DEFAULT (CAST(round((julianday('now') - 2440587.5) * 86400000) AS INTEGER)),
  key         TEXT,                                                   -- makes a repeat safe: same key, same job
  created_at  INTEGER NOT NULL
              DEFAULT (CAST(round((julianday('now') - 2440587.5) * 86400000) AS INTEGER)),
  os_user     TEXT,                                                   -- who ran `asyncq enqueue`; NULL: a plain INSERT
  parent      INTEGER,                                                -- the job inside which this call was made
  immediate   INTEGER NOT NULL DEFAULT 0                              -- 1: ran at once, as a part of its parent
              CONSTRAINT asyncq_job_immediate CHECK (immediate IN (0, 1)),
  depth       INTEGER NOT NULL DEFAULT 0,                             -- how many immediate calls deep
  attempt     INTEGER NOT NULL DEFAULT 0,                             -- the latest attempt, counted from 1
  processor   INTEGER,                                                -- who claimed that attempt
  token       TEXT,                                                   -- the secret of that attempt while it runs
  started_at  INTEGER,                                                -- when that attempt began
  finished_at INTEGER,                                                -- when the job ended
  cancelling  INTEGER NOT NULL DEFAULT 0                              -- 1: its processor is asked to end it
              CONSTRAINT asyncq_job_cancelling CHECK (cancelling IN (0, 1)),
  failures    INTEGER NOT NULL DEFAULT 0,                             -- since last queued by hand: attempts that failed,
  conflicts   INTEGER NOT NULL DEFAULT 0,                             -- that asked to be tried again,
  crashes     INTEGER NOT NULL DEFAULT 0,                             -- and whose processor died
  error       TEXT,                                                   -- JSON: {kind, message, exit_code, signal}
  result      TEXT,                                                   -- what the function left as its result, JSON
  claim       INTEGER NOT NULL DEFAULT 0,                             -- how often a processor has claimed it; a claim
                                                                      -- that goes back before it began is no attempt
  lane        TEXT,                                                   -- a client may set these five, too: of one lane,
                                                                      -- lane_width calls of the service run at once
  expires_at  INTEGER,                                                -- no attempt begins after it
  after       TEXT,                                                   -- the jobs that it needs: [7, 8], or
                                                                      -- {"ok": [7], "any": [8], "failed": [9]}
  key_until   TEXT,                                                   -- when the key is free again: 'started', 'ended';
                                                                      -- NULL: when the job is removed
  meta        TEXT,                                                   -- what the caller adds about the call, a JSON object
  waits       INTEGER NOT NULL DEFAULT 0                              -- why it is blocked: 1 for other jobs, 2 in its lane
) STRICT;
CREATE UNIQUE INDEX asyncq_job_key ON asyncq_job (key);
-- One index for each thing that is looked for; what has ended is in none of the first four.
CREATE INDEX asyncq_job_queued     ON asyncq_job (service, priority, run_at) WHERE state = 'queued';  -- and by id
CREATE INDEX asyncq_job_delayed    ON asyncq_job (service, run_at, claim, attempt) WHERE state = 'delayed';
CREATE INDEX asyncq_job_token      ON asyncq_job (processor) WHERE token IS NOT NULL;
CREATE INDEX asyncq_job_parent     ON asyncq_job (parent) WHERE parent IS NOT NULL;
CREATE INDEX asyncq_job_blocked    ON asyncq_job (service, waits, lane, priority, run_at) WHERE waits <> 0;
CREATE INDEX asyncq_job_lane       ON asyncq_job (service, lane)
  WHERE lane IS NOT NULL AND (state = 'queued' OR state = 'processing');
CREATE INDEX asyncq_job_expires    ON asyncq_job (service, expires_at)
  WHERE expires_at IS NOT NULL AND (state = 'queued' OR state = 'delayed' OR state = 'held' OR state = 'blocked');
CREATE INDEX asyncq_job_stopped    ON asyncq_job (state)
  WHERE finished_at IS NOT NULL AND state <> 'completed' OR state = 'held';  -- what people look for among millions

CREATE TABLE asyncq_large (                                           -- arguments too large for a row that changes
  job         INTEGER NOT NULL PRIMARY KEY REFERENCES asyncq_job (id) ON DELETE CASCADE,
  args        TEXT NOT NULL,
  kwargs      TEXT NOT NULL
) STRICT;

CREATE TABLE asyncq_attempt (                                         -- one run of a job; no row for a silent success
  job         INTEGER NOT NULL REFERENCES asyncq_job (id) ON DELETE CASCADE,
  number      INTEGER NOT NULL,                                       -- from 1; claims that never began have none
  processor   INTEGER NOT NULL,
  started_at  INTEGER NOT NULL,
  finished_at INTEGER NOT NULL,
  ending      TEXT NOT NULL CONSTRAINT asyncq_attempt_ending
              CHECK (ending = 'completed' OR ending = 'conflict' OR ending = 'error' OR ending = 'interrupted'
                     OR ending = 'cancelled' OR ending = 'crash' OR ending = 'snoozed'),
  error       TEXT,                                                   -- as in asyncq_job
  dropped     INTEGER NOT NULL DEFAULT 0,                             -- bytes of output between head and tail, not kept
  gap         INTEGER NOT NULL DEFAULT 0,                             -- where in the log they were
  pieces      TEXT,                                                   -- [[1 or 2, bytes], ...]; NULL: all to stdout
  log         BLOB,                                                   -- what it printed, both streams as they came
  unrecorded  INTEGER NOT NULL DEFAULT 0,                             -- calls inside it that are in no row
  PRIMARY KEY (job, number)
) STRICT;

CREATE TABLE asyncq_processor (                                       -- the processors at work, or dead at it
  id          INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
  folder      TEXT NOT NULL UNIQUE,                                   -- it lives while it locks the file in there
  host        TEXT NOT NULL,                                          -- where and what it is, should that file be gone:
  boot        TEXT NOT NULL,                                          -- machine, boot of it,
  pid         INTEGER NOT NULL,                                       -- process,
  pid_start   INTEGER NOT NULL,                                       -- and clock ticks from boot to its start
  started_at  INTEGER NOT NULL,
  store       TEXT                                                    -- which file it works on; a copy is another one
) STRICT;

CREATE TABLE asyncq_slot (                                            -- how many calls a processor may be running
  service     TEXT NOT NULL REFERENCES asyncq_service (name),
  processor   INTEGER NOT NULL REFERENCES asyncq_processor (id) ON DELETE CASCADE,
  taken       INTEGER NOT NULL CONSTRAINT asyncq_slot_taken CHECK (taken > 0),
  PRIMARY KEY (service, processor)
) STRICT, WITHOUT ROWID;

CREATE TABLE asyncq_progress (                                        -- how far calls are, as their workers tell
  job         INTEGER NOT NULL PRIMARY KEY REFERENCES asyncq_job (id) ON DELETE CASCADE,
  attempt     INTEGER NOT NULL,                                       -- it says nothing of any other one
  processor   INTEGER NOT NULL REFERENCES asyncq_processor (id) ON DELETE CASCADE,
  told        TEXT NOT NULL                                           -- in words, for people
) STRICT;

CREATE TABLE asyncq_after (                                           -- what jobs still need, and what failed them
  needs       INTEGER NOT NULL REFERENCES asyncq_job (id) ON DELETE CASCADE,
  job         INTEGER NOT NULL REFERENCES asyncq_job (id) ON DELETE CASCADE,
  wants       TEXT NOT NULL DEFAULT 'ok' CONSTRAINT asyncq_after_wants
              CHECK (wants = 'ok' OR wants = 'any' OR wants = 'failed'),
  PRIMARY KEY (needs, job),
  CONSTRAINT asyncq_after_older CHECK (needs < job)                   -- so nothing waits for itself
) STRICT, WITHOUT ROWID;
CREATE INDEX asyncq_after_job ON asyncq_after (job);

CREATE TABLE asyncq_settle (                                          -- ended jobs whose dependents do not know it yet
  job         INTEGER NOT NULL PRIMARY KEY REFERENCES asyncq_job (id) ON DELETE CASCADE,
  told        INTEGER NOT NULL DEFAULT 0                              -- dependents up to this one know it
) STRICT;

CREATE TABLE asyncq_schedule (                                        -- calls that are made again and again
  name        TEXT NOT NULL PRIMARY KEY,
  service     TEXT NOT NULL,
  function    TEXT NOT NULL,
  args        TEXT NOT NULL DEFAULT '[]',                             -- from here as in the job of each tick
  kwargs      TEXT NOT NULL DEFAULT '{}',
  principal   TEXT,
  site        TEXT,
  priority    INTEGER NOT NULL DEFAULT 0,
  lane        TEXT,
  expires     INTEGER,                                                -- how long after its tick a job expires
  cron        TEXT,                                                   -- five fields, and the zone of their times
  zone        TEXT,
  every       INTEGER CONSTRAINT asyncq_schedule_every CHECK (every >= 1000),   -- or a fixed span
  missed      TEXT NOT NULL DEFAULT 'once' CONSTRAINT asyncq_schedule_missed
              CHECK (missed = 'once' OR missed = 'skip' OR missed = 'all'),
  within      INTEGER,                                                -- how late a tick may be to make a job
  overlap     TEXT NOT NULL DEFAULT 'skip' CONSTRAINT asyncq_schedule_overlap
              CHECK (overlap = 'skip' OR overlap = 'queue' OR overlap = 'allow'),
  from_at     INTEGER,
  until_at    INTEGER,
  paused      INTEGER NOT NULL DEFAULT 0 CONSTRAINT asyncq_schedule_paused CHECK (paused IN (0, 1)),
  description TEXT,
  next_tick   INTEGER,                                                -- NULL: there is none
  last_tick   INTEGER,                                                -- the newest that was due
  last_job    INTEGER,                                                -- and the newest job that one made
  fired       INTEGER NOT NULL DEFAULT 0,                             -- how many jobs its ticks have made
  skipped     INTEGER NOT NULL DEFAULT 0,                             -- how many ticks made none,
  last_skip   TEXT,                                                   -- and of the newest of them which and why, JSON
  created_at  INTEGER NOT NULL,
  meta        TEXT,                                                   -- of its jobs, as there
  CONSTRAINT asyncq_schedule_rule CHECK ((cron IS NULL) = (zone IS NULL) AND (cron IS NULL) <> (every IS NULL)),
  FOREIGN KEY (service, function) REFERENCES asyncq_function (service, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX asyncq_schedule_next ON asyncq_schedule (service, next_tick) WHERE paused = 0 AND next_tick IS NOT NULL;

CREATE TABLE asyncq_origin (                                          -- jobs that asyncq made itself, and why
  job         INTEGER NOT NULL PRIMARY KEY REFERENCES asyncq_job (id) ON DELETE CASCADE,
  schedule    TEXT,                                                   -- of a schedule: which,
  tick        INTEGER,                                                -- which of its ticks,
  missed      INTEGER NOT NULL DEFAULT 0,                             -- and how many earlier ones it stands for
  hook        TEXT CONSTRAINT asyncq_origin_hook                      -- of a hook: which; its parent is the job it is
              CHECK (hook = 'on_error' OR hook = 'on_success'),       -- about
  UNIQUE (schedule, tick)
) STRICT;

CREATE TRIGGER asyncq_job_insert BEFORE INSERT ON asyncq_job BEGIN
  SELECT CASE
    WHEN NOT EXISTS (SELECT 1 FROM asyncq_function WHERE service = NEW.service AND name = NEW.function)
    THEN CASE WHEN EXISTS (SELECT 1 FROM asyncq_service WHERE name = NEW.service)
      THEN RAISE(ABORT, 'asyncq: no such function on this service') ELSE RAISE(ABORT, 'asyncq: no such service') END
    WHEN NEW.state <> 'queued' AND NEW.state <> 'held' AND NEW.state <> 'delayed'
    THEN RAISE(ABORT, 'asyncq: state must be queued, held or delayed')
    WHEN NEW.attempt <> 0 OR NEW.processor IS NOT NULL OR NEW.token IS NOT NULL OR NEW.started_at IS NOT NULL
      OR NEW.finished_at IS NOT NULL OR NEW.cancelling <> 0 OR NEW.failures <> 0 OR NEW.conflicts <> 0
      OR NEW.crashes <> 0 OR NEW.error IS NOT NULL OR NEW.result IS NOT NULL OR NEW.immediate <> 0 OR NEW.depth <> 0
      OR NEW.claim <> 0 OR NEW.waits <> 0 OR NEW.id > 0  -- the number is not known before an INSERT that leaves it out
      OR NEW.created_at <> CAST(round((julianday('now') - 2440587.5) * 86400000) AS INTEGER)
      OR NEW.os_user IS NOT NULL AND (SELECT version FROM asyncq_schema) > 0
    THEN RAISE(ABORT, 'asyncq: leave out the columns that asyncq keeps itself')
    WHEN NEW.parent IS NOT NULL AND NOT EXISTS (SELECT 1 FROM asyncq_job WHERE id = NEW.parent)
    THEN RAISE(ABORT, 'asyncq: parent must be a job that exists')
    WHEN NOT coalesce(json_valid(NEW.args), 0) OR json_type(NEW.args) <> 'array' OR instr(NEW.args, char(0)) > 0
    THEN RAISE(ABORT, 'asyncq: args must be a JSON array')
    WHEN NOT coalesce(json_valid(NEW.kwargs), 0) OR json_type(NEW.kwargs) <> 'object' OR instr(NEW.kwargs, char(0)) > 0
    THEN RAISE(ABORT, 'asyncq: kwargs must be a JSON object')
    WHEN length(CAST(NEW.args AS BLOB)) > 1048576 * length(CAST('a' AS BLOB))
      OR length(CAST(NEW.kwargs AS BLOB)) > 1048576 * length(CAST('a' AS BLOB))  -- 2 bytes in a UTF-16 database
    THEN RAISE(ABORT, 'asyncq: args and kwargs must be at most 1 MiB each')
    WHEN instr(NEW.args, '\u0000') > 0 AND instr(replace(NEW.args, '\\', ''), '\u0000') > 0
      OR instr(NEW.kwargs, '\u0000') > 0 AND instr(replace(NEW.kwargs, '\\', ''), '\u0000') > 0
    THEN RAISE(ABORT, 'asyncq: args and kwargs must not hold NUL characters')
    WHEN length(CAST(NEW.principal AS BLOB)) > 255 * length(CAST('a' AS BLOB)) OR instr(NEW.principal, char(0)) > 0
      OR NEW.principal GLOB '*[' || char(1, 45, 31, 127, 45, 159, 1564, 8203, 45, 8207, 8232, 45, 8238, 8288, 45, 8297,
                                         65279) || ']*'
      OR NEW.principal GLOB '*[^ -~]*' AND EXISTS (  -- character by character: does it encode as UTF-8?
        WITH RECURSIVE rest (text) AS (
          SELECT NEW.principal UNION ALL SELECT substr(text, 2) FROM rest WHERE length(text) > 1)
        SELECT 1 FROM rest WHERE substr(text, 1, 1) NOT IN (char(unicode(text)), char(65534), char(65535)))
    THEN RAISE(ABORT, 'asyncq: principal must be at most 255 bytes of UTF-8 without control characters')
    WHEN NEW.site <> '' AND NEW.site NOT GLOB '/*' OR instr(NEW.site, char(0)) > 0
    THEN RAISE(ABORT, 'asyncq: site must be an absolute path')
    WHEN NEW.run_at < 100000000000 OR NEW.run_at > 253402300799999
    THEN RAISE(ABORT, 'asyncq: run_at must be in milliseconds since 1970')
    WHEN NEW.key = ''
    THEN RAISE(ABORT, 'asyncq: key must not be empty')
    WHEN NEW.key_until IS NOT NULL AND (NEW.key IS NULL OR NEW.key_until <> 'started' AND NEW.key_until <> 'ended')
    THEN RAISE(ABORT, 'asyncq: key_until must be started or ended, and needs a key')
    WHEN NEW.lane IS NOT NULL AND (NEW.lane = '' OR length(CAST(NEW.lane AS BLOB)) > 255 * length(CAST('a' AS BLOB))
      OR instr(NEW.lane, char(0)) > 0 OR NEW.lane GLOB '*[' || char(1, 45, 31, 127, 45, 159) || ']*')
    THEN RAISE(ABORT, 'asyncq: lane must be 1 to 255 bytes without control characters')
    WHEN NEW.expires_at < 100000000000 OR NEW.expires_at > 253402300799999
    THEN RAISE(ABORT, 'asyncq: expires_at must be in milliseconds since 1970')
    WHEN CASE WHEN NEW.meta IS NULL THEN 0 WHEN json_valid(NEW.meta) THEN json_type(NEW.meta) <> 'object'
      OR length(CAST(NEW.meta AS BLOB)) > 4096 * length(CAST('a' AS BLOB)) OR instr(NEW.meta, char(0)) > 0
      OR instr(replace(NEW.meta, '\\', ''), '\u0000') > 0 ELSE 1 END
    THEN RAISE(ABORT, 'asyncq: meta must be a JSON object of at most 4 KiB without NUL characters')
    WHEN NEW.key IS NOT NULL AND EXISTS (
      SELECT 1 FROM asyncq_job AS old LEFT JOIN asyncq_large AS large ON large.job = old.id
      WHERE old.key = NEW.key AND NOT (old.service = NEW.service AND old.function = NEW.function
        AND (coalesce(old.args, large.args) = NEW.args AND coalesce(old.kwargs, large.kwargs) = NEW.kwargs
          OR old.key_until IS NOT NULL AND NEW.key_until IS NOT NULL)
        AND nullif(old.principal, '') IS nullif(NEW.principal, '') AND nullif(old.site, '') IS nullif(NEW.site, '')))
    THEN RAISE(ABORT, 'asyncq: this key belongs to another call')
  END;
  SELECT CASE
    WHEN json_array_length(NEW.args) < args_min THEN RAISE(ABORT, 'asyncq: too few arguments for this function')
    WHEN json_array_length(NEW.args) > args_max THEN RAISE(ABORT, 'asyncq: too many arguments for this function')
  END FROM asyncq_function WHERE service = NEW.service AND name = NEW.function AND takes IS NOT NULL;
  SELECT CASE
    WHEN CASE WHEN NOT json_valid(NEW.after) OR json_type(NEW.after) NOT IN ('array', 'object') THEN 1
      WHEN EXISTS (SELECT 1 FROM json_each(
          CASE json_type(NEW.after) WHEN 'array' THEN json_object('ok', json(NEW.after)) ELSE NEW.after END) AS list
        WHERE list.key NOT IN ('ok', 'any', 'failed') OR list.type <> 'array') THEN 1
      ELSE (SELECT count(*) > count(DISTINCT key) FROM json_each(NEW.after) AS list WHERE json_type(NEW.after) = 'object')
        OR EXISTS (SELECT 1 FROM json_each(
          CASE json_type(NEW.after) WHEN 'array' THEN json_object('ok', json(NEW.after)) ELSE NEW.after END) AS list
          CROSS JOIN json_each(list.value) AS it WHERE it.type <> 'integer') END
    THEN RAISE(ABORT, 'asyncq: after must be a list of job numbers, or an object of lists ok, any and failed')
  END WHERE NEW.after IS NOT NULL;
  SELECT CASE
    WHEN many > 100000
    THEN RAISE(ABORT, 'asyncq: after must have at most 100000 job numbers')
    WHEN many > different
    THEN RAISE(ABORT, 'asyncq: after must have each job number once')
    WHEN EXISTS (SELECT 1 FROM asyncq_job WHERE key = NEW.key) THEN NULL  -- it is a repeat, and stays one job
    WHEN many > there
    THEN RAISE(ABORT, 'asyncq: after must have numbers of jobs that exist')
    WHEN otherwise > 0
    THEN RAISE(ABORT, 'asyncq: a job in after has already ended in another way')
  END FROM (SELECT count(*) AS many, count(DISTINCT it.value) AS different, count(old.id) AS there,
      sum(CASE list.key WHEN 'ok' THEN old.state IN ('error', 'cancelled') WHEN 'failed' THEN old.state = 'completed' END)
        AS otherwise
    FROM json_each(
      CASE json_type(NEW.after) WHEN 'array' THEN json_object('ok', json(NEW.after)) ELSE NEW.after END) AS list
      CROSS JOIN json_each(list.value) AS it LEFT JOIN asyncq_job AS old ON old.id = it.value)
  WHERE NEW.after IS NOT NULL;
END;

-- What a new call needs besides its row; one trigger, as each costs time in each INSERT. The lane of the function counts where
-- the call has none of its own. The last UPDATE lets out who may run.
CREATE TRIGGER asyncq_job_inserted AFTER INSERT ON asyncq_job WHEN NEW.run_at > NEW.created_at OR NEW.lane IS NOT NULL
  OR NEW.expires_at IS NOT NULL OR NEW.after IS NOT NULL OR NEW.principal = '' OR NEW.site = ''
  OR length(NEW.args) + length(NEW.kwargs) > 2000
  OR (SELECT lane FROM asyncq_function WHERE service = NEW.service AND name = NEW.function) IS NOT NULL
BEGIN
  INSERT INTO asyncq_large (job, args, kwargs)
    SELECT NEW.id, NEW.args, NEW.kwargs WHERE length(NEW.args) + length(NEW.kwargs) > 2000;
  UPDATE asyncq_job SET args = NULL, kwargs = NULL WHERE id = NEW.id AND length(args) + length(kwargs) > 2000;
  UPDATE asyncq_job SET principal = nullif(principal, ''), site = nullif(site, '')
    WHERE id = NEW.id AND (principal = '' OR site = '');
  UPDATE asyncq_job SET state = 'delayed' WHERE id = NEW.id AND state = 'queued' AND run_at > created_at;
  INSERT INTO asyncq_after (needs, job, wants) SELECT it.value, NEW.id, list.key
    FROM json_each(
      CASE json_type(NEW.after) WHEN 'array' THEN json_object('ok', json(NEW.after)) ELSE NEW.after END) AS list
      CROSS JOIN json_each(list.value) AS it CROSS JOIN asyncq_job AS old ON old.id = it.value
    WHERE NEW.after IS NOT NULL AND old.state NOT IN ('completed', 'error', 'cancelled');
  INSERT INTO asyncq_settle (job) SELECT old.id FROM asyncq_after AS it CROSS JOIN asyncq_job AS old ON old.id = it.needs
    WHERE it.job = NEW.id AND old.state = 'processing' AND old.processor <= (SELECT older FROM asyncq_schema)
    ON CONFLICT DO NOTHING;
  UPDATE asyncq_schema SET used = used | (NEW.expires_at IS NOT NULL) | 4 * (NEW.after IS NOT NULL)
    WHERE used & 1 < (NEW.expires_at IS NOT NULL) OR used & 4 < 4 * (NEW.after IS NOT NULL);
  UPDATE asyncq_job SET state = 'blocked', waits = 1
    WHERE id = NEW.id AND state <> 'held' AND EXISTS (SELECT 1 FROM asyncq_after WHERE job = NEW.id);
  -- What may run gets the lane of its function together with a place in its line.
  UPDATE asyncq_job SET waits = CASE state WHEN 'queued' THEN 2 ELSE waits END,
    state = CASE state WHEN 'queued' THEN 'blocked' ELSE state END,
    lane = coalesce(lane, (SELECT nullif(replace(lane, '{principal}', coalesce(NEW.principal, '')), '')
      FROM asyncq_function WHERE service = NEW.service AND name = NEW.function))
    WHERE id = NEW.id AND (lane IS NOT NULL AND state = 'queued' OR lane IS NULL AND EXISTS (
      SELECT 1 FROM asyncq_function WHERE service = NEW.service AND name = NEW.function
        AND replace(lane, '{principal}', coalesce(NEW.principal, '')) <> ''));
END;

-- A client completes its own job, cancels what waits, releases what is held, and changes when a call runs that has not
-- begun, or its arguments while the key of such calls is theirs; the rest are the triggers here.
CREATE TRIGGER asyncq_job_update BEFORE UPDATE ON asyncq_job WHEN (SELECT version FROM asyncq_schema) > 0 BEGIN
  SELECT CASE
    WHEN (OLD.attempt > 0 OR OLD.state NOT IN ('held', 'blocked', 'delayed', 'queued')) AND NOT (
      (NEW.args, NEW.kwargs, NEW.priority, NEW.expires_at) IS (OLD.args, OLD.kwargs, OLD.priority, OLD.expires_at)
      AND (NEW.run_at = OLD.run_at OR NEW.run_at > OLD.run_at AND OLD.waits = 2 AND NEW.state = 'queued'))
    THEN RAISE(ABORT, 'asyncq: this call has begun')
    WHEN NEW.run_at <> OLD.run_at AND (NEW.run_at < 100000000000 OR NEW.run_at > 253402300799999)
    THEN RAISE(ABORT, 'asyncq: run_at must be in milliseconds since 1970')
    WHEN NEW.expires_at IS NOT OLD.expires_at AND (NEW.expires_at < 100000000000 OR NEW.expires_at > 253402300799999)
    THEN RAISE(ABORT, 'asyncq: expires_at must be in milliseconds since 1970')
    WHEN NOT (
      (NEW.id, NEW.service, NEW.function, NEW.created_at, NEW.os_user, NEW.parent, NEW.immediate, NEW.depth, NEW.attempt,
       NEW.claim, NEW.processor, NEW.token, NEW.started_at, NEW.cancelling, NEW.failures, NEW.conflicts, NEW.crashes,
       NEW.error, NEW.result, NEW.after, NEW.key_until, NEW.meta)
      IS (OLD.id, OLD.service, OLD.function, OLD.created_at, OLD.os_user, OLD.parent, OLD.immediate, OLD.depth, OLD.attempt,
       OLD.claim, OLD.processor, OLD.token, OLD.started_at, OLD.cancelling, OLD.failures, OLD.conflicts, OLD.crashes,
       OLD.error, OLD.result, OLD.after, OLD.key_until, OLD.meta)
      AND (NEW.key IS OLD.key OR NEW.key IS NULL AND OLD.key_until IS NOT NULL AND NEW.finished_at IS NOT NULL)
      AND (NEW.lane IS OLD.lane OR OLD.lane IS NULL AND NEW.state <> 'queued' AND NEW.state <> 'processing' AND NEW.lane IS (
        SELECT nullif(replace(lane, '{principal}', coalesce(OLD.principal, '')), '')
        FROM asyncq_function WHERE service = OLD.service AND name = OLD.function))
      AND NEW.waits = CASE WHEN NEW.state = 'cancelled' AND NEW.waits > 0 THEN OLD.waits WHEN NEW.state <> 'blocked' THEN 0
        WHEN OLD.state = 'blocked' THEN OLD.waits
        WHEN EXISTS (SELECT 1 FROM asyncq_after WHERE job = OLD.id) THEN 1 WHEN NEW.lane IS NOT NULL THEN 2 ELSE -1 END
      AND coalesce(NEW.principal, '') = coalesce(OLD.principal, '') AND coalesce(NEW.site, '') = coalesce(OLD.site, '')
      AND (NEW.args IS OLD.args AND NEW.kwargs IS OLD.kwargs OR OLD.key_until IS NOT NULL AND NEW.args IS NOT NULL
        OR NEW.args IS NULL AND NEW.kwargs IS NULL AND EXISTS (
          SELECT 1 FROM asyncq_large WHERE job = OLD.id AND args = OLD.args AND kwargs = OLD.kwargs))
      AND (NEW.finished_at IS OLD.finished_at
        OR OLD.finished_at IS NULL AND (OLD.state = 'completed' OR OLD.state = 'cancelled'))
      AND CASE NEW.state
        WHEN OLD.state THEN 1
        WHEN 'completed' THEN OLD.state = 'processing' AND OLD.token IS NOT NULL
        WHEN 'cancelled' THEN OLD.state IN ('held', 'delayed', 'queued', 'blocked')
        WHEN 'queued' THEN OLD.state = 'held'
          OR OLD.state = 'delayed' AND OLD.lane IS NULL AND OLD.run_at <= CAST(round((julianday('now') - 2440587.5) * 86400000) AS INTEGER)
          OR OLD.waits = 2 AND (
            SELECT count(*) FROM asyncq_job WHERE lane IS NOT NULL AND (state = 'queued' OR state = 'processing')
              AND service = OLD.service AND lane = OLD.lane) < (SELECT lane_width FROM asyncq_service WHERE name = OLD.service)
        WHEN 'delayed' THEN OLD.state = 'queued' AND OLD.run_at > OLD.created_at
          OR OLD.waits = 2 AND OLD.run_at > CAST(round((julianday('now') - 2440587.5) * 86400000) AS INTEGER)
        WHEN 'blocked' THEN NEW.waits = 1 AND OLD.state IN ('queued', 'delayed', 'held')
          OR NEW.waits = 2 AND OLD.state IN ('queued', 'delayed') AND OLD.run_at <= CAST(round((julianday('now') - 2440587.5) * 86400000) AS INTEGER)
        ELSE 0
      END)
    THEN RAISE(ABORT, 'asyncq: a client may complete, cancel, release or postpone a job, and change nothing else')
  END;
END;

CREATE TRIGGER asyncq_job_expiry AFTER UPDATE OF expires_at ON asyncq_job WHEN NEW.expires_at IS NOT NULL
BEGIN UPDATE asyncq_schema SET used = used | 1 WHERE used & 1 = 0; END;

CREATE TRIGGER asyncq_job_args BEFORE UPDATE OF args, kwargs ON asyncq_job
WHEN (SELECT version FROM asyncq_schema) > 0 AND (NEW.args, NEW.kwargs) IS NOT (OLD.args, OLD.kwargs)
  AND (NEW.args IS NOT NULL OR NEW.kwargs IS NOT NULL) BEGIN
  SELECT CASE
    WHEN NOT coalesce(json_valid(NEW.args), 0) OR json_type(NEW.args) <> 'array' OR instr(NEW.args, char(0)) > 0
    THEN RAISE(ABORT, 'asyncq: args must be a JSON array')
    WHEN NOT coalesce(json_valid(NEW.kwargs), 0) OR json_type(NEW.kwargs) <> 'object' OR instr(NEW.kwargs, char(0)) > 0
    THEN RAISE(ABORT, 'asyncq: kwargs must be a JSON object')
    WHEN length(CAST(NEW.args AS BLOB)) > 1048576 * length(CAST('a' AS BLOB))
      OR length(CAST(NEW.kwargs AS BLOB)) > 1048576 * length(CAST('a' AS BLOB))
    THEN RAISE(ABORT, 'asyncq: args and kwargs must be at most 1 MiB each')
    WHEN instr(NEW.args, '\u0000') > 0 AND instr(replace(NEW.args, '\\', ''), '\u0000') > 0
      OR instr(NEW.kwargs, '\u0000') > 0 AND instr(replace(NEW.kwargs, '\\', ''), '\u0000') > 0
    THEN RAISE(ABORT, 'asyncq: args and kwargs must not hold NUL characters')
  END;
  SELECT CASE
    WHEN json_array_length(NEW.args) < args_min THEN RAISE(ABORT, 'asyncq: too few arguments for this function')
    WHEN json_array_length(NEW.args) > args_max THEN RAISE(ABORT, 'asyncq: too many arguments for this function')
  END FROM asyncq_function WHERE service = NEW.service AND name = NEW.function AND takes IS NOT NULL;
END;

CREATE TRIGGER asyncq_job_replaced AFTER UPDATE OF args, kwargs ON asyncq_job
WHEN NEW.args IS NOT NULL AND (NEW.args, NEW.kwargs) IS NOT (OLD.args, OLD.kwargs) BEGIN
  DELETE FROM asyncq_large WHERE job = NEW.id;
  INSERT INTO asyncq_large (job, args, kwargs)
    SELECT NEW.id, NEW.args, NEW.kwargs WHERE length(NEW.args) + length(NEW.kwargs) > 2000;
  UPDATE asyncq_job SET args = NULL, kwargs = NULL WHERE id = NEW.id AND length(args) + length(kwargs) > 2000;
END;

-- What is due at another time waits for it in another state.
CREATE TRIGGER asyncq_job_moved AFTER UPDATE OF run_at ON asyncq_job
WHEN NEW.run_at <> OLD.run_at AND NEW.state = OLD.state
  AND (NEW.state = 'queued' OR NEW.state = 'delayed' OR NEW.waits = 2) BEGIN
  UPDATE asyncq_job SET state = 'delayed', waits = 0 WHERE id = NEW.id AND state <> 'delayed'
    AND run_at > CAST(round((julianday('now') - 2440587.5) * 86400000) AS INTEGER);
  UPDATE asyncq_job SET state = CASE WHEN lane IS NULL THEN 'queued' ELSE 'blocked' END,
    waits = CASE WHEN lane IS NULL THEN 0 ELSE 2 END
    WHERE id = NEW.id AND state = 'delayed' AND OLD.state = 'delayed'
      AND run_at <= CAST(round((julianday('now') - 2440587.5) * 86400000) AS INTEGER);
END;

-- What is held or has ended goes back to where it has to wait. It no longer needs jobs that have ended.
CREATE TRIGGER asyncq_job_released AFTER UPDATE OF state ON asyncq_job
WHEN (OLD.state = 'held' OR OLD.state = 'error' OR OLD.state = 'cancelled')
  AND (NEW.state = 'queued' OR NEW.state = 'delayed') BEGIN
  DELETE FROM asyncq_after WHERE job = NEW.id
    AND (SELECT state FROM asyncq_job WHERE id = needs) IN ('completed', 'error', 'cancelled');
  UPDATE asyncq_job SET state = 'blocked', waits = 1
    WHERE id = NEW.id AND EXISTS (SELECT 1 FROM asyncq_after WHERE job = NEW.id);
  UPDATE asyncq_job SET state = 'delayed' WHERE id = NEW.id AND state = 'queued'
    AND run_at > CAST(round((julianday('now') - 2440587.5) * 86400000) AS INTEGER);
  UPDATE asyncq_job SET state = 'blocked', waits = 2 WHERE id = NEW.id AND state = 'queued' AND lane IS NOT NULL;
END;

-- A call that enters a lane, or leaves its head, lets the lane fill its free places.
CREATE TRIGGER asyncq_job_lane_left AFTER UPDATE OF state ON asyncq_job
WHEN NEW.lane IS NOT NULL AND NEW.state <> 'queued' AND NEW.state <> 'processing'
  AND (NEW.waits = 2 OR OLD.state = 'queued' OR OLD.state = 'processing') BEGIN
  UPDATE asyncq_job SET state = 'queued', waits = 0,
    run_at = max(run_at, CAST(round((julianday('now') - 2440587.5) * 86400000) AS INTEGER))
  WHERE id IN (SELECT id FROM asyncq_job WHERE waits <> 0 AND waits = 2 AND service = NEW.service AND lane = NEW.lane
    ORDER BY priority, run_at, id LIMIT max(0, coalesce((SELECT lane_width FROM asyncq_service WHERE name = NEW.service), 0) - (
      SELECT count(*) FROM asyncq_job WHERE lane IS NOT NULL AND (state = 'queued' OR state = 'processing')
        AND service = NEW.service AND lane = NEW.lane)));
END;

-- What has ended is told to the calls that need it by the next processor.
CREATE TRIGGER asyncq_job_settle AFTER UPDATE OF state ON asyncq_job
WHEN (NEW.state = 'completed' OR NEW.state = 'error' OR NEW.state = 'cancelled')
  AND EXISTS (SELECT 1 FROM asyncq_after WHERE needs = NEW.id)
BEGIN INSERT INTO asyncq_settle (job) VALUES (NEW.id) ON CONFLICT DO NOTHING; END;

CREATE TRIGGER asyncq_job_key_freed AFTER UPDATE OF state ON asyncq_job
WHEN (NEW.state = 'completed' OR NEW.state = 'error' OR NEW.state = 'cancelled') AND NEW.key_until IS NOT NULL BEGIN
  UPDATE asyncq_job SET key = NULL,
    finished_at = coalesce(finished_at, CAST(round((julianday('now') - 2440587.5) * 86400000) AS INTEGER))
  WHERE id = NEW.id;
END;

-- A function that completes its own job, in its own transaction, need not know what time it is.
CREATE TRIGGER asyncq_job_ended AFTER UPDATE OF state ON asyncq_job
WHEN (NEW.state = 'completed' OR NEW.state = 'cancelled') AND (NEW.finished_at IS NULL OR NEW.waits > 0) BEGIN
  UPDATE asyncq_job SET waits = 0,
    finished_at = coalesce(finished_at, CAST(round((julianday('now') - 2440587.5) * 86400000) AS INTEGER))
  WHERE id = NEW.id;
END;

CREATE TRIGGER asyncq_job_needed BEFORE DELETE ON asyncq_job
WHEN EXISTS (SELECT 1 FROM asyncq_after AS it CROSS JOIN asyncq_job AS other ON other.id = it.job
  WHERE it.needs = OLD.id AND other.state IN ('held', 'blocked', 'delayed', 'queued'))
BEGIN SELECT RAISE(ABORT, 'asyncq: other calls still need this job'); END;

-- Most clients do without foreign keys.
CREATE TRIGGER asyncq_job_delete AFTER DELETE ON asyncq_job WHEN (SELECT version FROM asyncq_schema) > 0 BEGIN
  DELETE FROM asyncq_large WHERE job = OLD.id;
  DELETE FROM asyncq_attempt WHERE job = OLD.id;
  DELETE FROM asyncq_progress WHERE job = OLD.id;
  DELETE FROM asyncq_after WHERE needs = OLD.id;
  DELETE FROM asyncq_after WHERE job = OLD.id;
  DELETE FROM asyncq_settle WHERE job = OLD.id;
  DELETE FROM asyncq_origin WHERE job = OLD.id;
  UPDATE asyncq_job SET state = 'queued', waits = 0,
    run_at = max(run_at, CAST(round((julianday('now') - 2440587.5) * 86400000) AS INTEGER))
  WHERE id IN (SELECT id FROM asyncq_job WHERE waits <> 0 AND waits = 2 AND service = OLD.service AND lane = OLD.lane
    ORDER BY priority, run_at, id LIMIT max(0, coalesce((SELECT lane_width FROM asyncq_service WHERE name = OLD.service), 0) - (
      SELECT count(*) FROM asyncq_job WHERE lane IS NOT NULL AND (state = 'queued' OR state = 'processing')
        AND service = OLD.service AND lane = OLD.lane)));
END;

CREATE TRIGGER asyncq_schedule_insert AFTER INSERT ON asyncq_schedule
BEGIN UPDATE asyncq_schema SET used = used | 2 WHERE used & 2 = 0; END;

-- A client adds services and functions in its own transactions. A row that no processor could read is refused.
CREATE TRIGGER asyncq_service_insert BEFORE INSERT ON asyncq_service WHEN (SELECT version FROM asyncq_schema) > 0 BEGIN
  SELECT CASE
    WHEN NOT coalesce(NEW.name GLOB '[a-z0-9]*' AND NEW.name NOT GLOB '*[^a-z0-9._-]*' AND length(NEW.name) <= 255
      AND instr(NEW.name, char(0)) = 0, 0)
    THEN RAISE(ABORT, 'asyncq: name must be 1 to 255 of a-z, 0-9, ., _ and -, the first a letter or digit')
    WHEN NOT coalesce(NEW.concurrency BETWEEN 1 AND 4294967295, 0)
    THEN RAISE(ABORT, 'asyncq: concurrency must be 1 to 4294967295')
    WHEN NOT coalesce(NEW.paused IN (0, 1), 0)
    THEN RAISE(ABORT, 'asyncq: paused must be 0 or 1')
    WHEN coalesce(NEW.created_at <> CAST(round((julianday('now') - 2440587.5) * 86400000) AS INTEGER), 1)
      OR (NEW.lane_width, NEW.rate_at) IS NOT (1, 0)
      OR coalesce(NEW.rate, NEW.on_error, NEW.on_success, NEW.paused_why, NEW.keep, NEW.keep_errors) IS NOT NULL
    THEN RAISE(ABORT, 'asyncq: leave out the columns that asyncq keeps itself')
  END;
END;

CREATE TRIGGER asyncq_service_update BEFORE UPDATE ON asyncq_service
WHEN (SELECT version FROM asyncq_schema) > 0
  AND (NEW.name, NEW.concurrency, NEW.paused, NEW.created_at, NEW.lane_width, NEW.rate, NEW.rate_at, NEW.on_error,
       NEW.on_success, NEW.paused_why, NEW.keep, NEW.keep_errors)
  IS NOT (OLD.name, OLD.concurrency, OLD.paused, OLD.created_at, OLD.lane_width, OLD.rate, OLD.rate_at, OLD.on_error,
       OLD.on_success, OLD.paused_why, OLD.keep, OLD.keep_errors)
BEGIN SELECT RAISE(ABORT, 'asyncq: a client may add a service, and not change or remove it'); END;

CREATE TRIGGER asyncq_service_delete BEFORE DELETE ON asyncq_service WHEN (SELECT version FROM asyncq_schema) > 0
BEGIN SELECT RAISE(ABORT, 'asyncq: a client may add a service, and not change or remove it'); END;

CREATE TRIGGER asyncq_function_insert BEFORE INSERT ON asyncq_function
WHEN (SELECT version FROM asyncq_schema) > 0 BEGIN
  SELECT CASE
    WHEN NOT EXISTS (SELECT 1 FROM asyncq_service WHERE name = NEW.service)
    THEN RAISE(ABORT, 'asyncq: no such service')
    WHEN NOT coalesce(NEW.name GLOB '[A-Za-z_]*' AND NEW.name NOT GLOB '*[^A-Za-z0-9_.:-]*' AND length(NEW.name) <= 255
      AND instr(NEW.name, char(0)) = 0, 0)
    THEN RAISE(ABORT, 'asyncq: name must be 1 to 255 of A-Z, a-z, 0-9, _, ., : and -, the first a letter or _')
    WHEN coalesce(NEW.created_at <> CAST(round((julianday('now') - 2440587.5) * 86400000) AS INTEGER), 1)
      OR (NEW.generation, NEW.local) IS NOT (0, 0)
      OR coalesce(NEW.retry, NEW.lane, NEW.on_error, NEW.on_success, NEW.takes, NEW.args_min, NEW.args_max, NEW.secret,
        NEW.env_file) IS NOT NULL
    THEN RAISE(ABORT, 'asyncq: leave out the columns that asyncq keeps itself')
    WHEN CASE WHEN json_valid(NEW.command) THEN json_type(NEW.command) <> 'array'
      OR EXISTS (SELECT 1 FROM json_each(NEW.command) WHERE type <> 'text')
      OR NOT coalesce(instr(json_extract(NEW.command, '$[0]'), '/'), 0) ELSE 1 END
    THEN RAISE(ABORT, 'asyncq: command must be a JSON array of texts, the first a path with a slash')
    WHEN NOT coalesce(NEW.site GLOB '/*', 0)
    THEN RAISE(ABORT, 'asyncq: site must be an absolute path')
    WHEN CASE WHEN json_valid(NEW.env) THEN json_type(NEW.env) <> 'object'
      OR EXISTS (SELECT 1 FROM json_each(NEW.env) WHERE type <> 'text') ELSE 1 END
    THEN RAISE(ABORT, 'asyncq: env must be a JSON object of texts')
    WHEN EXISTS (SELECT 1 FROM json_each(NEW.env) WHERE key = '' OR key GLOB 'ASYNCQ_*'
      OR key GLOB '*[=' || char(1, 45, 31, 127, 45, 159) || ']*')
    THEN RAISE(ABORT, 'asyncq: a name in env must not be empty, begin with ASYNCQ_, or hold = or control characters')
    WHEN instr(NEW.command || NEW.site || NEW.env, char(0)) > 0
      OR instr(replace(NEW.command || NEW.env, '\\', ''), '\u0000') > 0
    THEN RAISE(ABORT, 'asyncq: command, site and env must not hold NUL characters')
    WHEN length(CAST(NEW.command || NEW.site || NEW.env AS BLOB)) > 1048576 * length(CAST('a' AS BLOB))
    THEN RAISE(ABORT, 'asyncq: command, site and env must be at most 1 MiB together')
    WHEN EXISTS (
      WITH RECURSIVE part (text) AS (SELECT NEW.site UNION ALL SELECT value FROM json_each(NEW.command)
        UNION ALL SELECT key FROM json_each(NEW.env) UNION ALL SELECT value FROM json_each(NEW.env)
        UNION ALL SELECT substr(text, 1, length(text) / 2) FROM part WHERE length(text) > 1 AND text GLOB '*[^ -~]*'
        UNION ALL SELECT substr(text, length(text) / 2 + 1) FROM part WHERE length(text) > 1 AND text GLOB '*[^ -~]*')
      SELECT 1 FROM part WHERE length(text) = 1 AND text NOT IN (char(unicode(text)), char(65534), char(65535)))
    THEN RAISE(ABORT, 'asyncq: command, site and env must be UTF-8 without half surrogate pairs')
    WHEN NEW.timeout NOT BETWEEN 1 AND 3162240000000
    THEN RAISE(ABORT, 'asyncq: timeout must be 1 to 3162240000000 milliseconds')
    WHEN CASE WHEN NEW.worker IS NULL THEN 0 WHEN json_valid(NEW.worker) THEN json_type(NEW.worker) <> 'object'
      OR instr(NEW.worker, '-') > 0 OR instr(NEW.worker, char(0)) > 0
      OR (SELECT count(*) > count(DISTINCT key) FROM json_each(NEW.worker))
      OR EXISTS (SELECT 1 FROM json_each(NEW.worker) WHERE NOT CASE
        WHEN key = 'calls' OR key = 'growth' THEN type = 'integer' AND value BETWEEN 1 AND 9223372036854775807
        ELSE key = 'idle' AND type = 'object' END)
      OR json_type(NEW.worker, '$.idle') IS NOT NULL AND (SELECT count(*) + count(DISTINCT key) <> 4
          OR sum(type = 'integer' AND CASE key WHEN 'secs' THEN value BETWEEN 0 AND 3162240000
            WHEN 'nanos' THEN value BETWEEN 0 AND 999999999 END) IS NOT 2 OR sum(value) = 0
        FROM json_each(NEW.worker, '$.idle'))
      ELSE 1 END
    THEN RAISE(ABORT, 'asyncq: worker must be a JSON object of calls, idle and growth')
    WHEN NOT coalesce((NEW.args, NEW.stdin) IN (VALUES ('words', 'call'), ('words', 'none'), ('stdin', 'call')), 0)
      OR NEW.worker IS NOT NULL AND (NEW.args, NEW.stdin) <> ('words', 'call')
    THEN RAISE(ABORT, 'asyncq: args and stdin must be words and call, words and none, or stdin and call')
    WHEN NOT coalesce(NEW.merge IN (0, 1), 0)
    THEN RAISE(ABORT, 'asyncq: merge must be 0 or 1')
  END;
END;

CREATE TRIGGER asyncq_function_update BEFORE UPDATE ON asyncq_function
WHEN (SELECT version FROM asyncq_schema) > 0
  AND (NEW.service, NEW.name, NEW.command, NEW.site, NEW.env, NEW.timeout, NEW.worker, NEW.created_at, NEW.args,
       NEW.stdin, NEW.generation, NEW.retry, NEW.lane, NEW.on_error, NEW.on_success, NEW.merge, NEW.takes, NEW.args_min,
       NEW.args_max, NEW.secret, NEW.env_file, NEW.local)
  IS NOT (OLD.service, OLD.name, OLD.command, OLD.site, OLD.env, OLD.timeout, OLD.worker, OLD.created_at, OLD.args,
       OLD.stdin, OLD.generation, OLD.retry, OLD.lane, OLD.on_error, OLD.on_success, OLD.merge, OLD.takes, OLD.args_min,
       OLD.args_max, OLD.secret, OLD.env_file, OLD.local)
BEGIN SELECT RAISE(ABORT, 'asyncq: a client may add a function, and not change or remove it'); END;

CREATE TRIGGER asyncq_function_delete BEFORE DELETE ON asyncq_function WHEN (SELECT version FROM asyncq_schema) > 0
BEGIN SELECT RAISE(ABORT, 'asyncq: a client may add a function, and not change or remove it'); END;
