package render

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/trailpoll/trailpoll/agent/record"
)

const docFile = "../../../docs/formats.md"

// The examples in the documentation are what comes out, and the order of
// reducing is the one that is documented.
func TestDocumentation(t *testing.T) {
	data, err := os.ReadFile(docFile)
	if err != nil {
		t.Fatal(err)
	}
	doc := string(data)
	_, raw, _ := strings.Cut(doc, "first (0) of its object:\n\n```json\n")
	raw, _, ok := strings.Cut(raw, "\n")
	if !ok {
		t.Fatal("there is no example")
	}
	rec := record.Record{
		Raw: []byte(raw), EventID: []byte(find(raw, `"eventID":"`)), EventTime: []byte(find(raw, `"eventTime":"`)),
		Object: &record.Object{
			Source: "org-trail", Bucket: "acme-logs", Labels: map[string]string{"priority": "high"},
			Key:     "AWSLogs/111122223333/CloudTrail/us-east-1/2026/11/03/111122223333_CloudTrail_us-east-1_20261103T2205Z_aBcDeFgHiJkLmNoP.json.gz",
			Account: "111122223333", AccountName: "payments-prod", Region: "us-east-1", LogType: "CloudTrail",
			Stamp: time.Date(2026, 11, 3, 22, 5, 0, 0, time.UTC),
		},
	}
	for _, form := range forms[1:] {
		out, err := newRenderer(t, Config{Record: form}).Append(nil, &rec, 0)
		if err != nil {
			t.Fatal(err)
		}
		if *update {
			doc = strings.Replace(doc, "@"+string(form)+"@", string(out), 1)
		}
		if !strings.Contains(doc, "\n"+string(out)+"\n") {
			t.Errorf("this is not in %s:\n%s", docFile, out)
		}
	}
	if *update {
		if err := os.WriteFile(docFile, []byte(doc), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	at := 0
	_, order, _ := strings.Cut(doc, "Left out are")
	for _, name := range append(append(dropFirst[:], "userIdentity"), dropNever[:]...) {
		i := strings.Index(order[at:], "`"+name+"`")
		if i < 0 {
			t.Errorf("%s is not documented in its place", name)
			continue
		}
		at += i
	}
}
