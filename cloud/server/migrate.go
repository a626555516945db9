package server

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"deckhand/cloud/model"
)

// existing is the database of a cloud that was started before.
func existing(dataDir, database string) (model.Config, error) {
	cfg := model.Config{Path: filepath.Join(dataDir, "cloud.db"), Database: database}
	if database == "" {
		if _, err := os.Stat(cfg.Path); err != nil {
			return cfg, fmt.Errorf("%w; give the folder of the cloud with --data-dir, or its --database", err)
		}
	}
	return cfg, nil
}

// OpenMigrator opens the schema of the cloud in dataDir, or of the cloud whose
// PostgreSQL database has the given URL. Its servers must be stopped.
func OpenMigrator(ctx context.Context, dataDir, database string) (*model.Migrator, error) {
	cfg, err := existing(dataDir, database)
	if err != nil {
		return nil, fmt.Errorf("open schema: %w", err)
	}
	return model.OpenMigrator(ctx, cfg)
}
