package asset_test

import (
	"testing"

	"deckhand/cloud/cloudtest"
)

func TestMain(m *testing.M) { cloudtest.Main(m) }
