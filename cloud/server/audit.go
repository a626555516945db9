package server

import (
	"context"
	"errors"
	"fmt"

	"deckhand/cloud/model"
)

// Audit reads the last n entries of the audit log of a cloud, which may be running:
// the one in dataDir, or the one whose PostgreSQL database has the given URL.
func Audit(ctx context.Context, dataDir, database string, f model.AuditFilter, n int) (entries []model.AuditEntry, err error) {
	cfg, err := existing(dataDir, database)
	if err != nil {
		return nil, fmt.Errorf("read audit log: %w", err)
	}
	db, err := model.OpenBeside(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if entries, err = db.LastAudited(ctx, f, n); err != nil {
		return nil, fmt.Errorf("read audit log: %w", err)
	}
	return entries, nil
}
