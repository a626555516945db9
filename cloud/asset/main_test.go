package asset_test

import (
	"testing"

	"deckhand/cloud/cloudtest"
	"deckhand/test/s3"
)

func TestMain(m *testing.M) { cloudtest.Main(s3.Tests{M: m}) }
