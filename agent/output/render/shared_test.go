package render

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	validate "github.com/valllabh/ocsf-schema-golang/ocsfvalidate/1.1"

	"github.com/trailpoll/trailpoll/agent/cloudtrail"
)

// Published CloudTrail logs, which are not part of this repository: each form
// of each record is sound, and OCSF is valid by the published schema.
func TestFormsOfRealRecords(t *testing.T) {
	dir := os.Getenv("TRAILPOLL_SHARED_DATA")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "..", "shared", "data")
	}
	files, _ := filepath.Glob(filepath.Join(dir, "invictus-ir_aws_dataset", "CloudTrail", "*.json"))
	if len(files) == 0 {
		t.Skip("published CloudTrail logs are not at hand (TRAILPOLL_SHARED_DATA)")
	}
	if testing.Short() {
		files = files[:5]
	}
	schema := ocsfSchema(t)
	place := object()
	n := 0
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var s cloudtrail.Splitter
		s.Reset(data, 1<<20)
		for {
			rec, err := s.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			rec.Object = place
			n++
			for _, form := range forms {
				r := newRenderer(t, Config{Record: form})
				whole, err := r.Append(nil, &rec, 0)
				if err != nil || bytes.ContainsAny(whole, "\r\n") || form != CEF && !valid(whole) {
					t.Fatalf("%s of %s: %v", form, rec.EventID, err)
				}
				if form == OCSF {
					if err := validate.Validate("api_activity", whole); err != nil {
						t.Fatalf("%s: %v", rec.EventID, err)
					}
					schema.known(t, "", decoded(t, whole), schema.root)
					constraints(t, decoded(t, whole))
				}
				limit := max(len(whole)/2, 1200)
				if small, err := r.Append(nil, &rec, limit); err == nil && (len(small) > limit || form != CEF && !valid(small)) {
					t.Fatalf("%s of %s reduced: %d bytes of %d", form, rec.EventID, len(small), limit)
				}
			}
		}
	}
	t.Logf("%d records", n)
}
