package render

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	validate "github.com/valllabh/ocsf-schema-golang/ocsfvalidate/1.1"

	"github.com/trailpoll/trailpoll/agent/output/outputtest"
	"github.com/trailpoll/trailpoll/agent/record"
)

// Every record of the corpus, and whatever else the other tests hold, is
// valid by the JSON schema that schema.ocsf.io published for the class; has
// no attribute that the class does not know; and keeps the constraints that
// JSON schema can't say.
func TestOCSFAgainstItsSchema(t *testing.T) {
	schema := ocsfSchema(t)
	r := newRenderer(t, Config{Record: OCSF})
	recs := append(corpusRecords(3000), goldenRecords()...)
	recs = append(recs, outputtest.OddRecords()...)
	for _, raw := range oddOCSF {
		recs = append(recs, record.Record{Object: object(), Raw: []byte(raw)})
	}
	activities := map[float64]int{}
	for i, rec := range recs {
		out, err := r.Append(nil, &rec, 0)
		if err != nil {
			if rec.Raw[0] == '{' {
				t.Fatal(err)
			}
			continue
		}
		if len(out) < 100_000 { // it says nothing new of the largest
			if err := validate.Validate("api_activity", out); err != nil {
				t.Fatalf("record %d: %v\n%.2000s", i, err, out)
			}
		}
		event := decoded(t, out)
		schema.known(t, "", event, schema.root)
		constraints(t, event)
		activities[event["activity_id"].(float64)]++
	}
	for _, id := range []float64{0, 1, 2, 3, 4, 99} {
		if activities[id] == 0 {
			t.Errorf("no record has activity %v: the corpus does not show it", id)
		}
	}
}

// oddOCSF are members of other kinds than CloudTrail gives them.
var oddOCSF = []string{
	`{"eventName":5,"eventSource":null,"userIdentity":"x","eventTime":{},"sourceIPAddress":["192.0.2.1"],"requestParameters":1,"requestID":"r"}`,
	`{"userIdentity":{},"resources":[],"readOnly":"true","errorCode":""}`,
	`{"userIdentity":{"type":"Directory","sessionContext":{"attributes":{"mfaAuthenticated":"maybe","creationDate":"never"},"sessionIssuer":5}}}`,
	`{"userIdentity":{"arn":"a"},"resources":[{"ARN":"a","ARN":"b"}],"eventName":"AssumeRole"}`,
	`{"userIdentity":{"invokedBy":"x"},"resources":[5],"sourceIPAddress":"fe80::1%eth0","eventName":"CreateUser","eventName":"second"}`,
	`{"eventName":"BatchGetItem"}`, `{"eventName":"UpdateX"}`, `{"eventName":"DeleteX"}`, `{"eventName":""}`, `{"eventName":"é"}`,
	`{"requestParameters":{"no":"request id"},"resources":[{"ARN":"a","other":1}],"unmapped":1,"metadata":2}`,
	`{"userIdentity":{"type":""},"userIdentity":{"type":"Root","accountId":""}}`,
}

// decoded returns an event as the standard library has it. 1e400, which the
// corpus has, it could not take.
func decoded(t *testing.T, b []byte) map[string]any {
	t.Helper()
	var event map[string]any
	if err := json.Unmarshal([]byte(strings.ReplaceAll(string(b), "1e400", "1e40")), &event); err != nil {
		t.Fatal(err)
	}
	return event
}

// constraints holds what JSON schema does not say: at_least_one, and that the
// numbers agree.
func constraints(t *testing.T, event map[string]any) {
	t.Helper()
	get := func(path string) map[string]any {
		var at any = event
		for name := range strings.SplitSeq(path, ".") {
			m, _ := at.(map[string]any)
			at = m[name]
		}
		m, _ := at.(map[string]any)
		return m
	}
	for path, names := range map[string][]string{
		"actor":        {"process", "user", "invoked_by", "session"},
		"actor.user":   {"account", "name", "uid"},
		"src_endpoint": {"ip", "uid", "name", "hostname", "svc_name", "instance_uid", "interface_uid", "interface_name"},
	} {
		object := get(path)
		if object == nil {
			continue
		}
		found := false
		for _, name := range names {
			found = found || object[name] != nil
		}
		if !found {
			t.Errorf("%s has none of %v: %v", path, names, object)
		}
	}
	if event["type_uid"].(float64) != 6003*100+event["activity_id"].(float64) {
		t.Errorf("type_uid %v of activity %v", event["type_uid"], event["activity_id"])
	}
	if v := get("metadata")["version"]; v != OCSFVersion {
		t.Errorf("version %v", v)
	}
	if event["activity_id"].(float64) == 99 && (event["activity_name"] == "" || event["activity_name"] == "Other") {
		t.Error("activity Other without the source's own name")
	}
}

// classSchema is the JSON schema of the class.
type classSchema struct {
	root map[string]any
	defs map[string]any
}

// ocsfSchema reads the schema from the module that carries it.
func ocsfSchema(t *testing.T) *classSchema {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/valllabh/ocsf-schema-golang")
	dir, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(filepath.Join(strings.TrimSpace(string(dir)), "ocsfvalidate/1.1/jsonschema/classes_api_activity.json.zst"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := zstd.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	data, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	s := new(classSchema)
	if err := json.Unmarshal(data, &s.root); err != nil {
		t.Fatal(err)
	}
	s.defs = s.root["$defs"].(map[string]any)
	return s
}

// known reports attributes of value that the schema does not name. The
// published schema lets any pass.
func (s *classSchema) known(t *testing.T, path string, value any, schema map[string]any) {
	t.Helper()
	if ref, ok := schema["$ref"].(string); ok {
		schema = s.defs[strings.TrimPrefix(ref, "#/$defs/")].(map[string]any)
	}
	switch value := value.(type) {
	case []any:
		items, _ := schema["items"].(map[string]any)
		for i, v := range value {
			s.known(t, fmt.Sprintf("%s[%d]", path, i), v, items)
		}
	case map[string]any:
		properties, _ := schema["properties"].(map[string]any)
		if schema["additionalProperties"] == true || schema["type"] == nil {
			return // unmapped, and what may be any JSON
		}
		for name, v := range value {
			p, ok := properties[name].(map[string]any)
			if !ok {
				t.Fatalf("the class has no attribute %s.%s", path, name)
			}
			s.known(t, path+"."+name, v, p)
		}
	}
}

// Nothing of a record is lost: each member is where OCSF has a place for it,
// or in unmapped, with its bytes.
func TestOCSFLosesNothing(t *testing.T) {
	r := newRenderer(t, Config{Record: OCSF})
	for i, rec := range corpusRecords(1000) {
		out, err := r.Append(nil, &rec, 0)
		if err != nil {
			t.Fatal(err)
		}
		w := newWorker()
		members, err := w.members(nil, rec.Raw)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range members {
			switch m.plain {
			case "userIdentity", "resources": // parts of them have places of their own
				continue
			}
			if m.kind() != 'n' && !strings.Contains(string(out), string(m.value)) {
				t.Fatalf("record %d: %s is gone from %.2000s", i, m.name, out)
			}
		}
	}
}
