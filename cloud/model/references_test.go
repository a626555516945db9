package model

import "testing"

// Rights are checked for what a row refers to: a reference that leads nowhere would
// be one that nobody checks.
func TestEveryReferenceOfWhatIsWrittenLeadsSomewhere(t *testing.T) {
	written := 0
	for _, r := range Resources() {
		if _, ok := ruleBook(r.Name); !ok {
			continue
		}
		written++
		for _, f := range r.Fields {
			if f.Kind != Reference || f.Expression != "" {
				continue
			}
			if _, ok := r.referred(f.Name); !ok {
				t.Errorf("%s.%s leads nowhere", r.Name, f.Name)
			}
		}
	}
	if written < 29 {
		t.Errorf("%d resources can be written", written)
	}
}
