package catalogue

import (
	"testing"

	"deckhand/cloud/cloudtest"
)

func TestMain(m *testing.M) { cloudtest.Main(m) }
