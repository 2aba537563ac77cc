package filter

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"pgregory.net/rapid"

	"github.com/trailpoll/trailpoll/agent/record"
	"github.com/trailpoll/trailpoll/testdata/corpus"
)

func compile(t testing.TB, rules ...Rule) *Filter {
	t.Helper()
	f, _, err := Compile(Config{Rules: rules})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func rec(raw string) *record.Record {
	return &record.Record{Object: &record.Object{Bucket: "acme-logs", Key: "k"}, Raw: []byte(raw)}
}

// One record, and what each expression says of it.
func TestExpressions(t *testing.T) {
	const raw = `{ "eventVersion":"1.11" , "userIdentity":{"type":"AssumedRole","arn":"arn:aws:sts::1:assumed-role/a/b","sessionContext":{"attributes":{"mfaAuthenticated":"false"},"sessionIssuer":{"userName":"admin"}}},
"eventSource":"s3.amazonaws.com","eventName":"Get\u004fbject","readOnly":true,"errorMessage":null,"responseElements":null,
"requestParameters":{"bucketName":"example","n":9007199254740993,"huge":123456789012345678901234567890,"f":1.688560107857E9,"z":0.0,"over":1e400,"list":[1,{"a":"b"}],"a.b":"dotted","a":{"b":"nested"},"twice":1,"twice":2,"inner":{"x":1,"x":2}},
"resources":[{"ARN":"arn:aws:s3:::example","accountId":"111122223333"},{"ARN":"arn:aws:s3:::other"}],"tlsDetails":{"tlsVersion":"TLSv1.3"},"newMember":{"deep":[true]},"eventName":"second"}`
	for when, want := range map[string]bool{
		`eventName == "GetObject"`:                              true,
		`eventName == "second"`:                                 false,
		`readOnly == true && eventSource == "s3.amazonaws.com"`: true,
		`readOnly`:                                        true,
		`not readOnly`:                                    false,
		`managementEvent == false`:                        false, // absent is neither
		`managementEvent == true`:                         false,
		`managementEvent != true`:                         true,
		`not managementEvent`:                             true,
		`managementEvent == nil`:                          true,
		`has(managementEvent)`:                            false,
		`has(readOnly) && has(userIdentity.type)`:         true,
		`has(userIdentity.userName)`:                      false,
		`errorCode == ""`:                                 true,
		`errorCode == nil`:                                true,
		`errorCode != nil`:                                false,
		`eventName != nil`:                                true,
		`errorMessage == ""`:                              true,
		`has(errorMessage)`:                               false, // null is as absent
		`userIdentity.type == "AssumedRole"`:              true,
		`userIdentity?.type == "AssumedRole"`:             true,
		`userIdentity["type"] in ["Root", "AssumedRole"]`: true,
		`userIdentity.sessionContext.attributes.mfaAuthenticated == "false"`:          true,
		`userIdentity.sessionContext.sessionIssuer.userName startsWith "ad"`:          true,
		`requestParameters.bucketName == "example"`:                                   true,
		`requestParameters.nothing.below.it == nil`:                                   true,
		`requestParameters["a.b"] == "dotted"`:                                        true,
		`requestParameters.a.b == "nested"`:                                           true,
		`requestParameters.n == 9007199254740993`:                                     true,
		`requestParameters.n == 9007199254740992`:                                     false,
		`requestParameters.huge == "123456789012345678901234567890"`:                  true,
		`requestParameters.f == 1688560107.857`:                                       true,
		`requestParameters.z == 0`:                                                    true,
		`requestParameters.over == "1e400"`:                                           true,
		`requestParameters.list[0] == 1`:                                              true,
		`requestParameters.list[1].a == "b"`:                                          true,
		`requestParameters.twice == 1`:                                                true,
		`requestParameters.a == {"b": "nested"}`:                                      true,
		`requestParameters.inner == {"x": 1}`:                                         true,
		`len(requestParameters) > 5`:                                                  true,
		`any(resources, .ARN startsWith "arn:aws:s3:::oth")`:                          true,
		`all(resources, .accountId == "111122223333")`:                                false,
		`any(resources, {.ARN == "arn:aws:s3:::other" and eventName == "GetObject"})`: true,
		`record.newMember.deep[0]`:                                                    true,
		`record.eventName == "GetObject"`:                                             true,
		`record.nothing == nil`:                                                       true,
		`responseElements == nil`:                                                     true,
		`tlsDetails.tlsVersion == "TLSv1.3"`:                                          true,
		`eventName matches "^(Get|List)"`:                                             true,
		`eventName contains "Obj" and not (eventSource endsWith ".com")`:              false,
		`let n = eventName; n == "GetObject"`:                                         true,
		`lower(eventName) == "getobject"`:                                             true,
		`true`:                                                                        true,
	} {
		f := compile(t, Rule{Action: Drop, When: when})
		if d := f.Decide(rec(raw)); d.Failed != nil || d.Keep == want {
			t.Errorf("%s: %+v, want %v", when, d, want)
		}
	}
}

// What a record does not let a rule work out keeps the record, and is counted,
// whatever rules follow.
func TestAFilterThatFailsKeeps(t *testing.T) {
	for when, raw := range map[string]string{
		`eventName == "x"`:                       `{"eventName":5}`,
		`eventName not in ["x"]`:                 `{"eventName":["x"]}`,
		`readOnly != true`:                       `{"readOnly":"true"}`,
		`not readOnly`:                           `{"readOnly":0}`,
		`requestParameters.a startsWith "x"`:     `{"requestParameters":{"a":{}}}`,
		`requestParameters.list[5] == 1`:         `{"requestParameters":{"list":[1]}}`,
		`record.x`:                               `{"x":"no truth"}`,
		`len(resources) == 0`:                    `{"resources":7}`,
		`requestParameters.p matches record.q`:   `{"requestParameters":{"p":"a"},"q":"("}`,
		`eventName != "x"`:                       `[]`,
		`eventName != "x" `:                      `{"eventName":"y"`,
		`requestParameters != nil`:               `{"requestParameters":`,
		`len(repeat(record.s, 1000000000)) >= 0`: `{"s":"xxxxxxxxxxxxxxxxxxxxxxxxx"}`,
	} {
		f := compile(t, Rule{Action: Drop, When: when}, Rule{Action: Drop, When: "true"})
		d := f.Decide(rec(raw))
		if d.Failed == nil || !d.Keep || d.By != 0 {
			t.Errorf("%s of %s: %+v", when, raw, d)
		}
		if c := f.Counts(); c.Rules[0].Failed != 1 || c.Rules[0].Matched != 0 || c.Rules[1].Matched != 0 {
			t.Errorf("%s: %+v", when, c)
		}
		if d.Failed != nil && strings.Contains(d.Failed.Error(), "x") && len(d.Failed.Error()) > 100 {
			t.Errorf("the record is quoted: %v", d.Failed)
		}
	}
}

func TestTheFirstMatchDecides(t *testing.T) {
	f := compile(t,
		Rule{Action: Keep, When: `userIdentity.type == "Root"`},
		Rule{Action: Drop, When: `readOnly == true`},
		Rule{Action: Keep, Match: `"eventName":"Delete`},
		Rule{Action: Drop, Match: `"eventSource":"ec2\.`},
	)
	for raw, want := range map[string]Decision{
		`{"userIdentity":{"type":"Root"},"readOnly":true}`:               {Keep: true, By: 0},
		`{"userIdentity":{"type":"IAMUser"},"readOnly":true}`:            {By: 1},
		`{"eventSource":"ec2.amazonaws.com","eventName":"DeleteVpc"}`:    {Keep: true, By: 2},
		`{"eventSource":"ec2.amazonaws.com","eventName":"RunInstances"}`: {By: 3},
		`{"eventSource":"s3.amazonaws.com","eventName":"PutObject"}`:     {Keep: true, By: Nothing},
	} {
		if got := f.Decide(rec(raw)); got != want {
			t.Errorf("%s: %+v, want %+v", raw, got, want)
		}
	}
	c := f.Counts()
	for i := range c.Rules {
		if c.Rules[i].Matched != 1 {
			t.Errorf("rule %d matched %d times", i, c.Rules[i].Matched)
		}
	}
	if c.Unmatched != 1 {
		t.Errorf("%+v", c)
	}
	if f := compile(t); !f.Keep(rec(`{}`)) || !f.Keep(rec(`nonsense`)) {
		t.Error("no rule drops something")
	}
}

func TestMistakesAreSaidWithTheirPosition(t *testing.T) {
	for _, c := range []struct {
		rule    Rule
		message string
		remedy  string
	}{
		{Rule{Drop, `eventNam == "x"`, ""}, "column 1: unknown name eventNam", "did you mean eventName?"},
		{Rule{Drop, `eventSource == "x" && eventname == "x"`, ""}, "column 23: unknown name eventname", "did you mean eventName?"},
		{Rule{Drop, "readOnly &&\n  nonsense", ""}, "line 2, column 3: unknown name nonsense", "record.nonsense"},
		{Rule{Drop, `userIdentity.typ == "x"`, ""}, "unknown field typ", "did you mean type?"},
		{Rule{Drop, `userIdentity?.typ == "x"`, ""}, "unknown field typ", "did you mean type?"},
		{Rule{Drop, `eventName == 5`, ""}, "column 11: invalid operation: == (mismatched types string and int)", "docs/filters.md"},
		{Rule{Drop, `eventName == "x`, ""}, "literal not terminated", "docs/filters.md"},
		{Rule{Drop, `eventName = "x"`, ""}, "column 11: unexpected token", "docs/filters.md"},
		{Rule{Drop, `eventName`, ""}, "it is no condition", "true or false"},
		{Rule{Drop, `eventName matches "("`, ""}, "missing closing )", "docs/filters.md"},
		{Rule{Drop, `now() > date(eventTime)`, ""}, "unknown name now", "docs/filters.md"},
		{Rule{Drop, `$env.eventName == "x"`, ""}, "column 1: $env is not known", "record.name"},
		{Rule{Drop, `eventName == "x" or record == nil`, ""}, "record", ""},
		{Rule{Drop, `len(record) > 1`, ""}, "column 5: record is the whole record", "record.eventName"},
		{Rule{Drop, `has("errorCode")`, ""}, "has wants a member", "has(errorCode)"},
		{Rule{Drop, "", `("eventName`}, "missing closing )", "RE2"},
		{Rule{Drop, "", `.*`}, "matches every record", "what must stand"},
		{Rule{Drop, "", ""}, "neither when nor match", "write one"},
		{Rule{Drop, "true", "x"}, "both", "write one"},
		{Rule{"pass", "true", ""}, `"pass" is not known`, "drop or keep"},
	} {
		f, _, err := Compile(Config{Rules: []Rule{{Keep, "true", ""}, c.rule}})
		problems, ok := errors.AsType[Problems](err)
		if !ok || f != nil || len(problems) != 1 {
			t.Errorf("%+v: %v", c.rule, err)
			continue
		}
		p := problems[0]
		if p.Rule != 1 || p.Remedy == "" || strings.Contains(p.Message, "\n") ||
			!strings.Contains(p.Message, c.message) || !strings.Contains(p.Remedy, c.remedy) {
			t.Errorf("%+v: %+v", c.rule, p)
		}
	}
	// All at once.
	_, _, err := Compile(Config{Rules: []Rule{{Drop, "x", ""}, {Keep, "true", ""}, {Drop, "", "("}}})
	if p, _ := errors.AsType[Problems](err); len(p) != 2 || p[0].Rule != 0 || p[1].Rule != 2 {
		t.Errorf("%v", err)
	}
}

func TestWarnings(t *testing.T) {
	for _, c := range []struct {
		rule Rule
		want string
	}{
		{Rule{Drop, "", `kms\.amazonaws\.com`}, "not tied to a member"},
		{Rule{Drop, "", `"eventName":"List|Describe`}, "not tied to a member"},
		{Rule{Drop, "", `("eventName":"x")?y`}, "not tied to a member"},
		{Rule{Drop, "", `"AssumeRole"`}, "not tied to a member"},
		{Rule{Drop, "", `"AssumeRole".*:`}, "not tied to a member"},
		{Rule{Drop, "", `"eventName":"(List|Describe)`}, ""},
		{Rule{Drop, "", `"eventName"\s*:\s*"List`}, ""},
		{Rule{Drop, "", `"(eventName|eventSource)":"x`}, ""},
		{Rule{Drop, "", `"eventName":"A|"eventName":"B`}, ""},
		{Rule{Keep, "", `anything`}, ""},
		{Rule{Drop, `userAgent contains "scanner"`, ""}, "can choose"},
		{Rule{Drop, `requestParameters.bucketName == "x" && userAgent != ""`, ""}, "can choose"},
		{Rule{Drop, `userAgent contains "scanner" && userIdentity.arn == "x"`, ""}, ""},
		{Rule{Keep, `userAgent contains "scanner"`, ""}, ""},
		{Rule{Drop, `true`, ""}, ""},
	} {
		_, warnings, err := Compile(Config{Rules: []Rule{c.rule}})
		if err != nil {
			t.Error(err)
			continue
		}
		if len(warnings) > 1 || (len(warnings) == 1) != (c.want != "") ||
			len(warnings) == 1 && (!strings.Contains(warnings[0].Message, c.want) || warnings[0].Remedy == "") {
			t.Errorf("%+v: %+v", c.rule, warnings)
		}
	}
}

// Every record of the corpus, with answers known by another way: the record
// decoded by the standard library.
func TestCorpusWithKnownAnswers(t *testing.T) {
	type event struct {
		EventName, EventSource, ErrorCode, UserAgent string
		ReadOnly                                     *bool
		UserIdentity                                 struct{ Type string }
		RequestParameters                            any
	}
	rules := []struct {
		when string
		is   func(e event, raw []byte) bool
	}{
		{`readOnly == true`, func(e event, _ []byte) bool { return e.ReadOnly != nil && *e.ReadOnly }},
		{`readOnly == false`, func(e event, _ []byte) bool { return e.ReadOnly != nil && !*e.ReadOnly }},
		{`eventSource == "kms.amazonaws.com"`, func(e event, _ []byte) bool { return e.EventSource == "kms.amazonaws.com" }},
		{`eventName startsWith "Describe"`, func(e event, _ []byte) bool { return strings.HasPrefix(e.EventName, "Describe") }},
		{`errorCode != ""`, func(e event, _ []byte) bool { return e.ErrorCode != "" }},
		{`userIdentity.type in ["Root", "AWSService"]`, func(e event, _ []byte) bool {
			return e.UserIdentity.Type == "Root" || e.UserIdentity.Type == "AWSService"
		}},
		{`requestParameters.roleName != nil`, func(e event, _ []byte) bool {
			m, _ := e.RequestParameters.(map[string]any)
			return m["roleName"] != nil
		}},
		{`userAgent contains "aws-cli/"`, func(e event, _ []byte) bool { return strings.Contains(e.UserAgent, "aws-cli/") }},
	}
	hits := make([]int, len(rules))
	filters := make([]*Filter, len(rules))
	for i := range rules {
		filters[i] = compile(t, Rule{Action: Drop, When: rules[i].when})
	}
	n, enough := 0, 6000
	if testing.Short() {
		enough = 1000
	}
	each(func(r *record.Record) bool {
		var e event
		// encoding/json ignores case, so it is asked about ordinary records only.
		if err := json.Unmarshal(r.Raw, &e); err != nil || bytes.Contains(r.Raw, []byte("EventID")) {
			return true
		}
		n++
		for i := range rules {
			want := rules[i].is(e, r.Raw)
			if want {
				hits[i]++
			}
			if d := filters[i].Decide(r); d.Failed != nil || d.Keep == want {
				t.Fatalf("%s of %.600s: %+v, want %v", rules[i].when, r.Raw, d, want)
			}
		}
		return n < enough
	})
	for i, hit := range hits {
		if hit == 0 || hit == n {
			t.Errorf("%s is true of %d of %d records: it shows nothing", rules[i].when, hit, n)
		}
	}
}

// each yields records of the corpus, odd ones first.
func each(yield func(*record.Record) bool) {
	c := corpus.New(1)
	layout := corpus.Layouts()[2]
	give := func(o corpus.Object) bool {
		place := &record.Object{Bucket: "acme-logs", Key: o.Key, Account: o.Account}
		for i := range o.Records {
			if !yield(&record.Record{Object: place, Index: i, Raw: o.Records[i].Raw}) {
				return false
			}
		}
		return true
	}
	for o := range c.Odd(layout, corpus.Epoch) {
		if !give(o) {
			return
		}
	}
	for o := range c.Objects(corpus.Traffic{Layout: layout}) {
		if !give(o) {
			return
		}
	}
}

const ownAgent = `[aws-sdk-go-v2/1.47.6 ua/2.1 os/linux lang/go#1.26.0 md/GOOS#linux api/s3#1.114.7 app/trailpoll m/E]`

func TestDropSelf(t *testing.T) {
	list := `{"userIdentity":{"type":"AssumedRole","accessKeyId":"ASIA1","sessionContext":{"sessionIssuer":{"arn":"arn:aws:iam::111122223333:role/poll"}}},"eventSource":"s3.amazonaws.com","eventName":"ListObjects","userAgent":"` + ownAgent + `","requestParameters":{"bucketName":"acme-logs","prefix":"AWSLogs/"}}`
	decrypt := `{"userIdentity":{"accessKeyId":"AKIA1","invokedBy":"AWS Internal"},"eventSource":"kms.amazonaws.com","eventName":"Decrypt","userAgent":"AWS Internal","requestParameters":{"encryptionContext":{"aws:s3:arn":"arn:aws-us-gov:s3:::acme-logs/AWSLogs/x"}}}`
	change := func(s, from, to string) string {
		if !strings.Contains(s, from) {
			t.Fatalf("%s is not in it", from)
		}
		return strings.ReplaceAll(s, from, to)
	}
	none := Self{Product: "trailpoll"}
	role := Self{Product: "trailpoll", RoleARN: "arn:aws:iam::111122223333:role/poll"}
	key := Self{Product: "trailpoll", AccessKeyID: "AKIA1"}
	for name, c := range map[string]struct {
		self Self
		raw  string
		drop bool
	}{
		"list":                    {none, list, true},
		"get":                     {none, change(list, "ListObjects", "GetObject"), true},
		"unbracketed":             {none, change(change(list, "[aws", "aws"), "m/E]", "m/E"), true},
		"alone":                   {none, change(list, ownAgent, "app/trailpoll"), true},
		"sts":                     {none, `{"eventSource":"sts.amazonaws.com","eventName":"GetCallerIdentity","userAgent":"` + ownAgent + `"}`, true},
		"by the role":             {role, list, true},
		"decrypt by the key":      {key, decrypt, true},
		"decrypt of the bucket":   {key, change(decrypt, "acme-logs/AWSLogs/x", "acme-logs"), true},
		"refused":                 {none, change(list, `"requestParameters"`, `"errorCode":"AccessDenied","requestParameters"`), false},
		"another bucket":          {none, change(list, "acme-logs", "payroll"), false},
		"a write":                 {none, change(list, "ListObjects", "PutObject"), false},
		"another service":         {none, change(list, "s3.amazonaws.com", "iam.amazonaws.com"), false},
		"another agent":           {none, change(list, "app/trailpoll", "app/trailpollster"), false},
		"another token":           {none, change(list, "app/trailpoll", "myapp/trailpoll"), false},
		"by another role":         {role, change(list, "role/poll", "role/admin"), false},
		"by another key":          {key, list, false},
		"decrypt, who is unknown": {none, decrypt, false},
		"decrypt by another key":  {key, change(decrypt, "AKIA1", "AKIA2"), false},
		"decrypt of another":      {key, change(decrypt, "acme-logs", "acme-logs-2"), false},
		"nothing":                 {none, `{}`, false},
		"no object":               {none, `[]`, false},
	} {
		f, _, err := Compile(Config{Self: &c.self, Rules: []Rule{{Keep, `eventSource != ""`, ""}}})
		if err != nil {
			t.Fatal(err)
		}
		d := f.Decide(rec(c.raw))
		if d.Keep == c.drop || (d.By == IsSelf) != c.drop {
			t.Errorf("%s: %+v", name, d)
		}
		if got := f.Counts().Self; (got == 1) != c.drop {
			t.Errorf("%s: counted %d", name, got)
		}
	}
}

// The lookup finds what jsontext finds, and nothing else, in any valid record.
func TestLookupProperty(t *testing.T) {
	paths := [][]string{{"a"}, {"b", "c"}, {"b"}, {"b", "d", "e"}, {"é"}, {"x\ny"}, {""}}
	var l lookup
	l.begin()
	var nodes []*node
	for _, p := range paths {
		nodes = append(nodes, l.want(p))
	}
	s := l.newScratch()
	rapid.Check(t, func(t *rapid.T) {
		raw := drawObject(t, 3)
		s.round++
		s.raw = []byte(raw)
		if end := s.object(0, l.root); end != len(raw) {
			t.Fatalf("ends at %d of %d: %s", end, len(raw), raw)
		}
		for i, p := range paths {
			want := first([]byte(raw), p)
			if got := s.at(nodes[i]); !bytes.Equal(got, want) {
				t.Fatalf("%q of %s: %q, want %q", p, raw, got, want)
			}
		}
	})
}

func drawObject(t *rapid.T, depth int) string {
	ws := func() string { return rapid.SampledFrom([]string{"", "", "", " ", "\t "}).Draw(t, "space") }
	name := rapid.SampledFrom([]string{`"a"`, `"b"`, `"c"`, `"d"`, `"e"`, `"\u0061"`, `"é"`, `"\u00e9"`, `"x\ny"`, `""`, `"a\\"`, `"\""`, `"other"`})
	b := "{" + ws()
	for i := range rapid.IntRange(0, 6).Draw(t, "members") {
		if i > 0 {
			b += ws() + "," + ws()
		}
		b += name.Draw(t, "name") + ws() + ":" + ws()
		if depth > 0 && rapid.Bool().Draw(t, "nest") {
			b += drawObject(t, depth-1)
		} else {
			b += rapid.SampledFrom([]string{`"x"`, `"a\\"`, `"\\\""`, `"{\"a\":1}"`, `"}]"`, `5`, `-1.0E5`, `null`, `[]`, `[{"a":[1,"]"]}, 2]`, `{}`}).Draw(t, "value")
		}
	}
	return b + ws() + "}"
}

// first returns the value at the path, by the library: of several members the
// first, and within that.
func first(raw []byte, path []string) []byte {
	d := jsontext.NewDecoder(bytes.NewBuffer(raw), jsontext.AllowDuplicateNames(true))
	if _, err := d.ReadToken(); err != nil {
		return nil
	}
	for d.PeekKind() == '"' {
		name, _ := d.ReadToken()
		match := name.String() == path[0]
		v, _ := d.ReadValue()
		if !match {
			continue
		}
		if len(path) == 1 {
			return bytes.Clone(v)
		}
		if v.Kind() != '{' {
			return nil
		}
		return first(bytes.Clone(v), path[1:])
	}
	return nil
}

func TestManyGoroutines(t *testing.T) {
	f := compile(t, Rule{Drop, `readOnly == true && requestParameters.x != "y"`, ""}, Rule{Keep, "", `"eventName":"Run`})
	var want []bool
	var all []*record.Record
	each(func(r *record.Record) bool {
		all, want = append(all, r), append(want, f.Keep(r))
		return len(all) < 200
	})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i, r := range all {
				if f.Keep(r) != want[i] {
					t.Errorf("record %d", i)
					return
				}
			}
		})
	}
	wg.Wait()
	c := f.Counts()
	if n := c.Rules[0].Matched + c.Rules[1].Matched + c.Unmatched + c.Rules[0].Failed; n != int64(5*len(all)) {
		t.Errorf("%d counted of %d", n, 5*len(all))
	}
}

// Neither rules nor records make it panic, and what is not an object is kept.
func FuzzDecide(f *testing.F) {
	f.Add(`eventName == "x"`, []byte(`{"eventName":"x"}`))
	f.Add(`any(resources, .ARN == requestParameters.a)`, []byte(`{"resources":[{"ARN":1e400}],"requestParameters":{"a":[]}}`))
	f.Add(`has(userIdentity.type) ? readOnly : record.x.y`, []byte(`{"userIdentity":{"type":"\ud800"},"readOnly":tru`))
	f.Add(`let x = errorCode; x == nil || x?.y`, []byte(`{"errorCode":"\`))
	f.Add(`userIdentity?.sessionContext?.attributes.x == 1`, []byte(`{"userIdentity":{"userIdentity":{"sessionContext":{`))
	f.Fuzz(func(t *testing.T, when string, raw []byte) {
		fl, _, err := Compile(Config{Rules: []Rule{{Drop, when, ""}}, Self: &Self{Product: "trailpoll"}})
		if err != nil {
			if p, ok := errors.AsType[Problems](err); !ok || p[0].Remedy == "" || strings.Contains(p[0].Message, "\n") {
				t.Fatalf("%q", err)
			}
			return
		}
		before := bytes.Clone(raw)
		d := fl.Decide(&record.Record{Object: &record.Object{Bucket: "b"}, Raw: raw})
		if !bytes.Equal(before, raw) {
			t.Fatal("the record was changed")
		}
		if d.Failed != nil && !d.Keep {
			t.Fatal("failed and dropped")
		}
	})
}

func FuzzNumber(f *testing.F) {
	for _, s := range []string{"0", "-0", "0.0", "9007199254740993", "1e400", "1E-400", "0.12345678901234567890", "123456789012345678901234567890", "1.688560107857E9"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if v := jsontext.Value(s); !v.IsValid() || v.Kind() != '0' || strings.TrimSpace(s) != s {
			return
		}
		switch v := number([]byte(s)).(type) {
		case int:
			if n := json.Number(s); fmt.Sprint(v) != s && s != "-0" {
				t.Fatalf("%s became %v", n, v)
			}
		case float64, string:
		default:
			t.Fatalf("%s became a %T", s, v)
		}
	})
}
