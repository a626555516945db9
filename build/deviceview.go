package build

import (
	"context"
	"encoding/json"
	"fmt"

	"deckhand/compose"
)

// asDevicesReadIt reads the composition the way a device will: what a device would refuse
// is refused now, before anything is built, and what it would not honour is said.
func (p *project) asDevicesReadIt(ctx context.Context) error {
	data, err := json.Marshal(p.composition)
	if err != nil {
		return fmt.Errorf("write composition: %w", err)
	}
	var doc map[string]any
	if err := json.Unmarshal(data, &doc); err != nil {
		return fmt.Errorf("write composition: %w", err)
	}
	for _, s := range child(doc, "services") {
		if fields, ok := s.(map[string]any); ok {
			delete(fields, "build") // a device gets the image instead
			fields["image"] = "registry.invalid/v2/image"
		}
	}
	_, problems, err := compose.Load(ctx, compose.Options{Release: true, AnyVariable: true}, doc)
	if err != nil {
		return fmt.Errorf("read composition: %w", err)
	}
	for _, problem := range problems {
		if problem.Kind == compose.Rejected {
			return fmt.Errorf("devices cannot run this: %s: %s", problem.Path, problem.Text)
		}
		verb := "on devices"
		if problem.Kind == compose.Ignored {
			verb = "is ignored by devices"
		}
		p.warnings = append(p.warnings, fmt.Sprintf("%s %s: %s", problem.Path, verb, problem.Text))
	}
	return nil
}
