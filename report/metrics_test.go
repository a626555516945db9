package report

import "testing"

func TestBuckets(t *testing.T) {
	for _, c := range []struct{ last, now, size, want int }{
		{10, 19, 20, 10}, // the same bucket
		{19, 21, 20, 19}, // over the border, but hardly
		{10, 39, 20, 39}, // another one
		{105, 109, 10, 105},
		{105, 95, 10, 95},
		{-1, 1, 5, 1}, // 2 °C is half of five, cut off
		{-1, -4, 5, -1},
		{-1, -6, 5, -6},
		{100, 101, 10, 100},
		{100, 99, 10, 100}, // it flutters
		{100, 1000, 10, 1000},
	} {
		if got := *inBucket(&c.now, &c.last, c.size); got != c.want {
			t.Errorf("%d after %d in buckets of %d: %d, want %d", c.now, c.last, c.size, got, c.want)
		}
	}
	if inBucket(nil, new(1), 5) != nil || *inBucket(new(1), nil, 5) != 1 {
		t.Error("what is not known has no bucket")
	}
}
