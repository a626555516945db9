package model

import (
	"context"
	"fmt"
)

// SigningKey is a key that all servers on this database sign with, by its name.
// When there is none yet, the one that make returns is stored; of several servers
// that start at once, all get the same.
func (db *DB) SigningKey(ctx context.Context, name string, make func() ([]byte, error)) ([]byte, error) {
	value := func(t *txn) (key string, err error) {
		return key, notFound(t.QueryRowContext(ctx, `SELECT value FROM signing_key WHERE name = ?`, name).Scan(&key), "signing key %s", name)
	}
	var key string
	err := db.update(ctx, func(t *txn) error {
		made, err := make()
		if err != nil {
			return err
		}
		if _, err := t.ExecContext(ctx, `INSERT INTO signing_key (name, created_at, value) VALUES (?, ?, ?) ON CONFLICT (name) DO NOTHING`,
			name, millis(t.now), string(made)); err != nil {
			return err
		}
		key, err = value(t)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("signing key %s: %w", name, err)
	}
	return []byte(key), nil
}
