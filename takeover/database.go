package takeover

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	_ "modernc.org/sqlite" // registers the "sqlite" driver
)

// maxDatabase bounds what is copied, in bytes; a real one has a few hundred KiB.
const maxDatabase = 256 << 20

// database is a copy of a supervisor's database. The copy takes what a log beside
// the file has not brought into it yet, and the original is never written to.
type database struct {
	ctx     context.Context //nolint:containedctx // one short run, and every read needs it
	db      *sql.DB
	folder  string
	columns map[string][]string // of each table
}

// openDatabase copies a database below scratch, where only root reads, and checks
// it. Close removes the copy.
func openDatabase(ctx context.Context, path, scratch string) (*database, error) {
	folder, err := os.MkdirTemp(scratch, "import-")
	if err != nil {
		return nil, err
	}
	d := &database{ctx: ctx, folder: folder, columns: map[string][]string{}}
	if err := d.open(path); err != nil {
		return nil, errors.Join(fmt.Errorf("read %s: %w", path, err), d.Close())
	}
	return d, nil
}

func (d *database) open(path string) error {
	name := filepath.Join(d.folder, "database.sqlite")
	if err := copyFile(path, name); err != nil {
		return err
	}
	for _, beside := range []string{"-wal", "-journal"} { // -shm is an index of -wal, and made anew
		if err := copyFile(path+beside, name+beside); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	var err error
	if d.db, err = sql.Open("sqlite", name); err != nil {
		return err
	}
	d.db.SetMaxOpenConns(1)
	var verdict string
	if err := d.db.QueryRowContext(d.ctx, "PRAGMA quick_check(1)").Scan(&verdict); err != nil {
		return fmt.Errorf("it is no sound SQLite database: %w", err)
	}
	if verdict != "ok" {
		return fmt.Errorf("it is damaged: %s", verdict)
	}
	return d.learn()
}

// learn lists tables and columns: versions of the supervisor differ in them.
func (d *database) learn() error {
	all, err := d.query("SELECT m.name AS tbl, c.name AS col FROM sqlite_master m, pragma_table_info(m.name) c WHERE m.type = 'table' ORDER BY 1, 2")
	if err != nil {
		return fmt.Errorf("list its tables: %w", err)
	}
	for _, r := range all {
		table, _ := r["tbl"].(string)
		column, _ := r["col"].(string)
		d.columns[table] = append(d.columns[table], column)
	}
	if len(d.columns["config"])+len(d.columns["app"]) == 0 {
		return errors.New("it has neither a table config nor a table app; is it the database of balena's supervisor?")
	}
	return nil
}

// Close removes the copy.
func (d *database) Close() error {
	var err error
	if d.db != nil {
		err = d.db.Close()
	}
	return errors.Join(err, os.RemoveAll(d.folder))
}

func copyFile(from, to string) error {
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() || info.Size() > maxDatabase {
		return fmt.Errorf("%s is no regular file of at most %d MiB", from, maxDatabase>>20)
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, io.LimitReader(in, maxDatabase))
	return errors.Join(err, out.Close())
}

// row is a row of a table by column.
type row map[string]any

func (d *database) query(text string) (out []row, err error) {
	rows, err := d.db.QueryContext(d.ctx, text)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	names, err := rows.Columns()
	if err != nil {
		return nil, err
	}
	for rows.Next() {
		values, at := make([]any, len(names)), make([]any, len(names))
		for i := range values {
			at[i] = &values[i]
		}
		if err := rows.Scan(at...); err != nil {
			return nil, err
		}
		r := row{}
		for i, n := range names {
			r[n] = values[i]
		}
		out = append(out, r)
	}
	return out, rows.Err()
}

// table is all of a table.
type table struct {
	name    string
	columns []string
	rows    []row
}

// read reads a table; found is false when this version has none.
func (d *database) read(name string) (t table, found bool, err error) {
	if t.columns, found = d.columns[name]; !found {
		return t, false, nil
	}
	t.name = name
	if t.rows, err = d.query("SELECT * FROM " + name + " ORDER BY rowid"); err != nil { // name is one of ours
		return t, true, fmt.Errorf("table %s: %w", name, err)
	}
	return t, true, nil
}

func (t table) has(columns ...string) bool {
	return !slices.ContainsFunc(columns, func(c string) bool { return !slices.Contains(t.columns, c) })
}

// field reads columns of one row and keeps the first thing that is wrong.
type field struct {
	table string
	at    int // row, from 1
	row   row
	err   error
}

func (t table) each(do func(f *field) error) error {
	for i, r := range t.rows {
		f := &field{table: t.name, at: i + 1, row: r}
		if err := do(f); err != nil {
			return err
		}
		if f.err != nil {
			return f.err
		}
	}
	return nil
}

// wrong says where the database is damaged. Values may be secrets and are left out.
func (f *field) wrong(column, text string, args ...any) {
	if f.err == nil {
		f.err = fmt.Errorf("table %s, row %d, column %s: %s", f.table, f.at, column, fmt.Sprintf(text, args...))
	}
}

func (f *field) text(column string) string {
	switch v := f.row[column].(type) {
	case nil:
		return ""
	case string:
		return v
	case []byte:
		return string(v)
	case int64:
		return strconv.FormatInt(v, 10)
	}
	f.wrong(column, "it is no text")
	return ""
}

func (f *field) number(column string) int64 {
	switch v := f.row[column].(type) {
	case nil:
		return 0
	case int64:
		return v
	case bool:
		if v {
			return 1
		}
		return 0
	case float64:
		if v == math.Trunc(v) && math.Abs(v) < 1<<53 {
			return int64(v)
		}
	case string:
		if n, err := strconv.ParseInt(strings.TrimSpace(v), 10, 64); err == nil {
			return n
		}
	}
	f.wrong(column, "it is no whole number")
	return 0
}

// json reads a column that holds JSON; nothing is read from an empty one.
func (f *field) json(column string, into any) {
	raw := []byte(strings.TrimSpace(f.text(column)))
	if len(raw) == 0 || f.err != nil {
		return
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	err := d.Decode(into)
	if err == nil && d.More() {
		err = errors.New("something stands behind its end")
	}
	if wrongType, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		err = fmt.Errorf("%s is of type %s", strings.TrimPrefix(wrongType.Field, "."), wrongType.Value)
	}
	if err != nil {
		f.wrong(column, "it is not the JSON that is expected: %v", err)
	}
}
