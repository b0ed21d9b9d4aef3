/**
 * The tables of a PostgreSQL journal and every statement that is sent to them. Times are the database's own: clocks of
 * workers differ.
 *
 * In `record`, a row without a kind is a run that has begun. In `session`, `watermark` says below which counters all have
 * ended; a session that has ended keeps its row for a while, so that late attempts are known.
 */

export const LAYOUT = 1
/** Rows that one statement deletes or ends. */
export const BATCH = 1_000
/** The journal was not swept for this long: no worker was there to hear anybody, and leases begin anew. */
const UNSWEPT = "interval '60 seconds'"

/** Makes the tables; for one transaction. `schema` is a name that needs no quotes. */
export const tablesOf = (schema: string): string => `
CREATE SCHEMA IF NOT EXISTS ${schema};
CREATE TABLE ${schema}.journal (
  single boolean PRIMARY KEY DEFAULT true CHECK (single),
  id text NOT NULL,
  layout integer NOT NULL,
  swept_at timestamptz NOT NULL DEFAULT now(),
  resumed_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE ${schema}.worker (
  name text PRIMARY KEY,
  run bigint NOT NULL,
  opened_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE ${schema}.session (
  client text COLLATE "C" PRIMARY KEY,
  watermark bigint NOT NULL DEFAULT 0,
  used_at timestamptz NOT NULL DEFAULT now(),
  ended boolean NOT NULL DEFAULT false
);
CREATE INDEX session_used ON ${schema}.session (used_at) WHERE NOT ended;
CREATE INDEX session_ended ON ${schema}.session (used_at) WHERE ended;
CREATE TABLE ${schema}.record (
  client text COLLATE "C" NOT NULL,
  counter bigint NOT NULL,
  kind text,
  payload bytea,
  worker text NOT NULL,
  run bigint NOT NULL,
  mark bigint,
  PRIMARY KEY (client, counter)
);
`

/** Rolls a transaction back for good, even if its owner ignores the error. */
export const ABORT =
  "DO $$ BEGIN RAISE unique_violation USING MESSAGE = 'adaptnet: the request cannot be completed'; END $$"

const ago = (ms: string): string => `now() - ${ms}::float8 * interval '1 millisecond'`
const listed = (clients: string): string => `(SELECT jsonb_array_elements_text(${clients}::text::jsonb))`

export interface Statements {
  exists: string
  lock: string
  insertJournal: string
  journal: string
  openWorker: string
  mark: string
  look: string
  hearAndLook: string
  complete: string
  confirm: string
  unmark: string
  forget: string
  deleteEnded: string
  touch: string
  sweep: string
  endSessions: string
  dropSessions: string
  report: string
  crowded: string
}

export function statementsOf(schema: string): Statements {
  const journal = `${schema}.journal`
  const worker = `${schema}.worker`
  const session = `${schema}.session`
  const record = `${schema}.record`
  // $1 client, $2 counter, $3 worker, $4 run; read by a statement of its own, which sees all that was committed before.
  const look = `
    SELECT coalesce(s.watermark > $2::bigint, false) AS ended, r.counter IS NOT NULL AS found, r.kind, r.payload,
      coalesce(r.worker = $3 AND r.run = $4::bigint, false) AS own, r.mark::float8 AS mark,
      coalesce(w.run > r.run, false) AS over
    FROM (VALUES (1)) AS one
    LEFT JOIN ${session} s ON s.client = $1
    LEFT JOIN ${record} r ON r.client = $1 AND r.counter = $2::bigint
    LEFT JOIN ${worker} w ON w.name = r.worker`
  // $5 how many ms old a note of the last use may be; in `mark`, $6 numbers it. Nothing is written, and no row is locked, before that.
  const hear = `
    INSERT INTO ${session} (client) SELECT $1::text
    WHERE NOT EXISTS (SELECT FROM ${session} WHERE client = $1 AND NOT ended AND used_at > ${ago('$5')})
    ON CONFLICT (client) DO UPDATE SET used_at = now(), ended = false`
  return {
    exists: `SELECT EXISTS (SELECT FROM pg_tables WHERE schemaname = '${schema}' AND tablename = 'journal') AS found`,
    lock: `SELECT pg_advisory_xact_lock(hashtext('adaptnet'), hashtext('${schema}'))`,
    insertJournal: `INSERT INTO ${journal} (id, layout) VALUES ($1, $2) ON CONFLICT DO NOTHING`,
    journal: `SELECT id, layout FROM ${journal}`,
    openWorker: `
      INSERT INTO ${worker} (name, run) VALUES ($1, 1)
      ON CONFLICT (name) DO UPDATE SET run = worker.run + 1, opened_at = now() RETURNING run::text`,
    mark: `
      WITH heard AS (${hear})
      INSERT INTO ${record} (client, counter, worker, run, mark) VALUES ($1, $2::bigint, $3, $4::bigint, $6::bigint)
      ON CONFLICT DO NOTHING`,
    look,
    hearAndLook: `WITH heard AS (${hear}) ${look}`,
    // $3 kind, $4 payload, $5 worker, $6 run
    complete: `
      WITH known AS (
        INSERT INTO ${session} (client) SELECT $1::text WHERE NOT EXISTS (SELECT FROM ${session} WHERE client = $1)
        ON CONFLICT DO NOTHING)
      INSERT INTO ${record} AS r (client, counter, kind, payload, worker, run)
      SELECT $1::text, $2::bigint, $3::text, $4::bytea, $5::text, $6::bigint
      WHERE NOT EXISTS (SELECT FROM ${session} WHERE client = $1 AND watermark > $2::bigint)
      ON CONFLICT (client, counter) DO UPDATE
        SET kind = excluded.kind, payload = excluded.payload, worker = excluded.worker, run = excluded.run
        WHERE r.kind IS NULL
      RETURNING 1`,
    // To be asked after \`complete\`, in the same transaction. Another run's record may have been deleted while \`complete\`
    // ran; the watermark had been committed before. A statement of READ COMMITTED sees that. A transaction of a higher
    // level does not, but cannot lock a row that has changed since it began, and fails.
    confirm: `
      WITH held AS MATERIALIZED (
        SELECT watermark FROM ${session}
        WHERE client = $1 AND current_setting('transaction_isolation') <> 'read committed' FOR SHARE)
      SELECT coalesce((SELECT watermark FROM held), (SELECT watermark FROM ${session} WHERE client = $1), 0)
        > $2::bigint AS ended, (SELECT id FROM ${journal}) AS id`,
    unmark: `
      DELETE FROM ${record}
      WHERE client = $1 AND counter = $2::bigint AND kind IS NULL AND worker = $3 AND run = $4::bigint`,
    // Committed before the records go: see \`confirm\`.
    forget: `
      INSERT INTO ${session} (client, watermark) VALUES ($1, $2::bigint)
      ON CONFLICT (client) DO UPDATE
        SET watermark = greatest(session.watermark, excluded.watermark), used_at = now(), ended = false`,
    deleteEnded: `
      DELETE FROM ${record} WHERE (client, counter) IN (
        SELECT r.client, r.counter FROM ${record} r JOIN ${session} s USING (client)
        WHERE r.client IN ${listed('$1')} AND r.counter < s.watermark
        LIMIT ${BATCH} FOR UPDATE OF r SKIP LOCKED)`,
    touch: `UPDATE ${session} SET used_at = now(), ended = false WHERE client IN ${listed('$1')}`,
    sweep: `
      UPDATE ${journal} SET swept_at = now(),
        resumed_at = CASE WHEN swept_at < now() - ${UNSWEPT} THEN now() ELSE resumed_at END`,
    // $1 ms, $2 clients that are not to be ended
    endSessions: `
      WITH over AS (
        SELECT client FROM ${session}
        WHERE NOT ended AND used_at < ${ago('$1')} AND (SELECT resumed_at FROM ${journal}) < ${ago('$1')}
          AND client NOT IN ${listed('$2')}
        LIMIT ${BATCH} FOR UPDATE SKIP LOCKED)
      UPDATE ${session} SET ended = true, watermark = greatest(session.watermark, coalesce(
        (SELECT max(counter) + 1 FROM ${record} r WHERE r.client = session.client), 0))
      FROM over WHERE session.client = over.client RETURNING session.client`,
    // $1 ms. With what a killed worker may have left of their records.
    dropSessions: `
      WITH gone AS (
        DELETE FROM ${session} WHERE client IN (
          SELECT client FROM ${session} WHERE ended AND used_at < ${ago('$1')} LIMIT ${BATCH} FOR UPDATE SKIP LOCKED)
        RETURNING client)
      DELETE FROM ${record} r USING gone WHERE r.client = gone.client`,
    // $1 records; reads no more of them than that, however many there are.
    crowded: `
      SELECT count(*) >= $1::bigint AS crowded FROM (SELECT FROM ${record} LIMIT $1::bigint) AS counted`,
    report: `
      SELECT (SELECT count(*) FROM ${record})::float8 AS records, (SELECT count(*) FROM ${session})::float8 AS clients,
        (pg_total_relation_size('${record}') + pg_total_relation_size('${session}'))::float8 AS bytes`,
  }
}
