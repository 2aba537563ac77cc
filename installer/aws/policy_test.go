package aws_test

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclparse"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"
	ctyjson "github.com/zclconf/go-cty/cty/json"
	"go.yaml.in/yaml/v3"

	"github.com/trailpoll/trailpoll/installer/aws"
	"github.com/trailpoll/trailpoll/regions"
)

// setup is one of each kind.
type setup struct {
	partition, prefix string
	key               bool
}

func setups() []setup {
	var all []setup
	for _, p := range regions.Partitions() {
		for _, prefix := range []string{"", "logs/org"} {
			for _, key := range []bool{false, true} {
				all = append(all, setup{p.ID, prefix, key})
			}
		}
	}
	return all
}

func (s setup) caller() string { return "arn:" + s.partition + ":iam::111122223333:user/agent" }
func (s setup) role() string   { return "arn:" + s.partition + ":iam::222233334444:role/trailpoll-read" }

func (s setup) keys() []string {
	if !s.key {
		return nil
	}
	return []string{"arn:" + s.partition + ":kms:some-region-1:222233334444:key/1234"}
}

func (s setup) render(t *testing.T) map[string]any {
	t.Helper()
	docs, err := aws.Render(aws.Setup{
		Partition: s.partition, Bucket: "acme-logs", Prefix: s.prefix, KMSKeys: s.keys(),
		Reader: s.caller(), Roles: []string{s.role()}, ExternalID: "the-external-id",
	})
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]any{}
	for _, d := range docs {
		var v any
		if err := json.Unmarshal([]byte(d.JSON), &v); err != nil || d.Title == "" {
			t.Errorf("%s: %v: %s", d.Name, err, d.JSON)
		}
		out[d.Name] = v
	}
	return out
}

// generic makes plain JSON of a value, so that it can be compared.
func generic(t *testing.T, v any) any {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var out any
	if err := json.Unmarshal(data, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// allowed are the only actions that anything of ours grants a reader.
var allowed = map[string]string{
	"s3:ListBucket":  `^arn:PARTITION:s3:::acme-logs$`,
	"s3:GetObject":   `^arn:PARTITION:s3:::acme-logs/(logs/org/)?AWSLogs/\*$`,
	"kms:Decrypt":    `^arn:PARTITION:kms:some-region-1:222233334444:key/1234$|^\*$`,
	"sts:AssumeRole": `^arn:PARTITION:iam::222233334444:role/trailpoll-read$`,
}

// judge sees to it that a policy grants nothing wider, and nothing of another
// partition.
func judge(t *testing.T, name string, s setup, policy any) {
	t.Helper()
	statements, _ := policy.([]any)
	if m, ok := policy.(map[string]any); ok {
		if statements, ok = m["Statement"].([]any); !ok {
			statements = []any{m} // a single one
		} else if m["Version"] != "2012-10-17" {
			t.Errorf("%s: version %v", name, m["Version"])
		}
	}
	if len(statements) == 0 {
		t.Errorf("%s: no statement", name)
	}
	for _, st := range statements {
		st := st.(map[string]any)
		if who, ok := st["Principal"].(map[string]any); ok && who["Service"] == "cloudtrail.amazonaws.com" {
			if cond, ok := st["Condition"].(map[string]any); !ok || cond["StringEquals"].(map[string]any)["aws:SourceArn"] == nil {
				t.Errorf("%s: CloudTrail without a trail: %v", name, st)
			}
			continue
		}
		action, ok := st["Action"].(string)
		pattern, known := allowed[action]
		if !ok || !known || st["Effect"] != "Allow" {
			t.Errorf("%s: %v", name, st)
			continue
		}
		re := regexp.MustCompile(strings.ReplaceAll(pattern, "PARTITION", regexp.QuoteMeta(s.partition)))
		resources, _ := st["Resource"].([]any)
		for _, r := range resources {
			if !re.MatchString(r.(string)) {
				t.Errorf("%s: %s on %v", name, action, r)
			}
		}
		if len(resources) == 0 && !strings.HasSuffix(name, "trust") && !strings.Contains(name, "AssumeRolePolicyDocument") {
			t.Errorf("%s: %s on nothing", name, action)
		}
		if action == "kms:Decrypt" && st["Condition"] == nil {
			t.Errorf("%s: the key for anything", name)
		}
		if who, ok := st["Principal"].(map[string]any); ok && !strings.HasPrefix(fmt.Sprint(who["AWS"]), "arn:"+s.partition+":iam::") {
			t.Errorf("%s: trusts %v", name, who)
		}
	}
}

func TestPoliciesAreNarrow(t *testing.T) {
	for _, s := range setups() {
		docs := s.render(t)
		want := []string{"assume", "bucket", "identity", "trust"}
		if s.key {
			want = []string{"assume", "bucket", "identity", "key", "trust"}
		}
		if got := slices.Sorted(maps.Keys(docs)); !slices.Equal(got, want) {
			t.Errorf("%+v: %v", s, got)
		}
		for name, policy := range docs {
			judge(t, name, s, policy)
		}
	}
}

func TestRenderByItself(t *testing.T) {
	docs, err := aws.Render(aws.Setup{Bucket: "b", Prefix: "a*b?${x}"})
	if err != nil || len(docs) != 2 || docs[0].Name != "identity" || docs[1].Name != "bucket" {
		t.Fatalf("%+v, %v", docs, err)
	}
	if !strings.Contains(docs[0].JSON, `"arn:aws:s3:::b/a${*}b${?}${$}{x}/AWSLogs/*"`) {
		t.Errorf("what is special to IAM in a prefix: %s", docs[0].JSON)
	}
	docs, err = aws.Render(aws.Setup{Partition: "aws-cn", Bucket: "b", Roles: []string{"r1", "r2"}, Reader: "me", ExternalID: "x"})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, d := range docs {
		names = append(names, d.Name+": "+d.Title)
	}
	if got := strings.Join(names, "\n"); !strings.Contains(got, "assumes the role, r1\ntrust: trust policy of the role, r2") ||
		strings.Contains(docs[2].JSON, "ExternalId") || !strings.Contains(docs[4].JSON, "ExternalId") {
		t.Errorf("a chain: %s", got)
	}
	for _, s := range []aws.Setup{{}, {Bucket: "b", Partition: "aws-mars"}} {
		if _, err := aws.Render(s); err == nil {
			t.Errorf("%+v: no error", s)
		}
	}
}

// The templates of CloudFormation, worked out as CloudFormation does, are the
// same policies.
func TestCloudFormation(t *testing.T) {
	names, err := fs.Glob(aws.Templates, "cloudformation/*.yaml")
	if err != nil || len(names) != 3 {
		t.Fatal(names, err)
	}
	for _, s := range setups() {
		want := s.render(t)
		got := map[string]any{}
		for _, name := range names {
			for at, policy := range cloudFormation(t, name, s) {
				judge(t, name+" "+at, s, policy)
				got[strings.TrimPrefix(name, "cloudformation/")+" "+at] = policy
			}
		}
		for at, doc := range map[string]string{
			"reader-policy.yaml Policy.PolicyDocument":                 "identity",
			"cross-account-role.yaml Role.Policies.0.PolicyDocument":   "identity",
			"cross-account-role.yaml Role.AssumeRolePolicyDocument":    "trust",
			"cross-account-role.yaml Outputs.KeyPolicyStatement.Value": "key",
		} {
			if d := cmp.Diff(want[doc], got[at]); d != "" {
				t.Errorf("%+v: %s: %s", s, at, d)
			}
		}
		statements, _ := got["bucket-policy.yaml BucketPolicy.PolicyDocument"].(map[string]any)
		all, _ := statements["Statement"].([]any)
		if len(all) != 4 {
			t.Fatalf("%v", got)
		}
		readers := strings.ReplaceAll(string(mustJSON(t, all[2:])), s.caller(), s.role())
		if d := cmp.Diff(string(mustJSON(t, want["bucket"])), readers); d != "" {
			t.Errorf("%+v: bucket-policy.yaml: %s", s, d)
		}
	}
}

func mustJSON(t *testing.T, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// noValue is what !Ref AWS::NoValue leaves: nothing.
type noValue struct{}

// stack works out a template.
type stack struct {
	t          *testing.T
	file       string
	refs       map[string]string
	conditions map[string]any
}

// cloudFormation returns the policies of a template, by where they stand.
func cloudFormation(t *testing.T, name string, s setup) map[string]any {
	t.Helper()
	data, err := fs.ReadFile(aws.Templates, name)
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Parameters map[string]struct {
			Type    string  `yaml:"Type"`
			Default *string `yaml:"Default"`
		} `yaml:"Parameters"`
		Conditions map[string]yaml.Node `yaml:"Conditions"`
		Resources  map[string]struct {
			Type       string               `yaml:"Type"`
			Properties map[string]yaml.Node `yaml:"Properties"`
		} `yaml:"Resources"`
		Outputs map[string]struct {
			Condition string    `yaml:"Condition"`
			Value     yaml.Node `yaml:"Value"`
		} `yaml:"Outputs"`
	}
	if err := yaml.Unmarshal(data, &doc); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	st := stack{t: t, file: name, conditions: map[string]any{}, refs: map[string]string{
		"AWS::Partition": s.partition, "Role.Arn": s.role(), "Policy": "arn",
		"BucketName": "acme-logs", "Prefix": s.prefix, "KmsKeyArn": strings.Join(s.keys(), ""), "CallerArn": s.caller(),
		"ReaderArn": s.caller(), "ExternalId": "the-external-id", "RoleName": "trailpoll-read",
		"TrailArn": "arn:" + s.partition + ":cloudtrail:some-region-1:222233334444:trail/org",
	}}
	for p, def := range doc.Parameters {
		if _, ok := st.refs[p]; !ok || def.Type != "String" {
			t.Errorf("%s: parameter %s", name, p)
		}
	}
	for c, n := range doc.Conditions {
		st.conditions[c] = st.value(&n)
	}
	out := map[string]any{}
	var collect func(at string, v any)
	collect = func(at string, v any) {
		switch v := v.(type) {
		case map[string]any:
			if v["Version"] == "2012-10-17" {
				out[at] = v
				return
			}
			for k, inner := range v {
				collect(at+"."+k, inner)
			}
		case []any:
			for i, inner := range v {
				collect(fmt.Sprintf("%s.%d", at, i), inner)
			}
		}
	}
	for r, res := range doc.Resources {
		if !slices.Contains([]string{"AWS::IAM::ManagedPolicy", "AWS::IAM::Role", "AWS::S3::BucketPolicy"}, res.Type) {
			t.Errorf("%s: %s is a %s", name, r, res.Type)
		}
		for p, n := range res.Properties {
			collect(r+"."+p, generic(t, st.value(&n)))
		}
	}
	for o, output := range doc.Outputs {
		v := st.value(&output.Value)
		if output.Condition != "" && st.conditions[output.Condition] != true {
			continue
		}
		if text := fmt.Sprint(v); strings.HasPrefix(text, "{") {
			var statement any
			if err := json.Unmarshal([]byte(text), &statement); err != nil {
				t.Errorf("%s: output %s: %v", name, o, err)
			}
			out["Outputs."+o+".Value"] = statement
		}
	}
	return out
}

var substitution = regexp.MustCompile(`\$\{([A-Za-z0-9:.]+)\}`)

func (s *stack) ref(name string) any {
	if name == "AWS::NoValue" {
		return noValue{}
	}
	v, ok := s.refs[name]
	if !ok {
		s.t.Errorf("%s: there is no %s", s.file, name)
	}
	return v
}

func (s *stack) value(n *yaml.Node) any {
	switch n.Kind {
	case yaml.DocumentNode:
		return s.value(n.Content[0])
	case yaml.MappingNode:
		m := map[string]any{}
		for i := 0; i < len(n.Content); i += 2 {
			if v := s.value(n.Content[i+1]); v != (noValue{}) {
				m[n.Content[i].Value] = v
			}
		}
		return m
	case yaml.SequenceNode:
		var list []any
		for _, c := range n.Content {
			list = append(list, s.value(c))
		}
		switch n.Tag {
		case "!If":
			if s.conditions[list[0].(string)] == true {
				return list[1]
			}
			return list[2]
		case "!Not":
			return list[0] != true
		case "!Equals":
			return list[0] == list[1]
		case "!!seq":
			return slices.DeleteFunc(list, func(v any) bool { _, no := v.(noValue); return no })
		}
	case yaml.ScalarNode:
		switch n.Tag {
		case "!Ref", "!GetAtt":
			return s.ref(n.Value)
		case "!Sub":
			return substitution.ReplaceAllStringFunc(n.Value, func(m string) string {
				return fmt.Sprint(s.ref(m[2 : len(m)-1]))
			})
		case "!!str":
			return n.Value
		}
	}
	s.t.Errorf("%s:%d: %s is not known", s.file, n.Line, n.Tag)
	return nil
}

// The module of Terraform, worked out as Terraform does, has the same policies.
func TestTerraform(t *testing.T) {
	parser := hclparse.NewParser()
	var bodies []*hclsyntax.Body
	names, _ := fs.Glob(aws.Templates, "terraform/*.tf")
	if len(names) != 3 {
		t.Fatal(names)
	}
	for _, name := range names {
		data, err := fs.ReadFile(aws.Templates, name)
		if err != nil {
			t.Fatal(err)
		}
		f, diags := parser.ParseHCL(data, name)
		if diags.HasErrors() {
			t.Fatal(diags)
		}
		bodies = append(bodies, f.Body.(*hclsyntax.Body))
	}
	for _, s := range setups() {
		want := s.render(t)
		locals := terraform(t, bodies, s)
		for name, doc := range map[string]string{
			"read_policy": "identity", "trust_policy": "trust", "bucket_statements": "bucket", "key_statement": "key",
		} {
			if doc == "key" && !s.key {
				continue
			}
			judge(t, "terraform "+doc, s, locals[name])
			if d := cmp.Diff(want[doc], locals[name]); d != "" {
				t.Errorf("%+v: %s: %s", s, name, d)
			}
		}
	}
}

// terraform works out the module's locals, and sees to it that all else can be
// worked out, too.
func terraform(t *testing.T, bodies []*hclsyntax.Body, s setup) map[string]any {
	t.Helper()
	keys := cty.ListValEmpty(cty.String)
	if s.key {
		keys = cty.ListVal([]cty.Value{cty.StringVal(s.keys()[0])})
	}
	variables := map[string]cty.Value{
		"bucket": cty.StringVal("acme-logs"), "prefix": cty.StringVal(s.prefix), "kms_key_arns": keys, "name": cty.StringVal("trailpoll-read"),
		"caller_arn": cty.StringVal(s.caller()), "external_id": cty.StringVal("the-external-id"),
	}
	object := func(name, value string) cty.Value {
		return cty.ObjectVal(map[string]cty.Value{name: cty.StringVal(value)})
	}
	role := cty.ObjectVal(map[string]cty.Value{"arn": cty.StringVal(s.role()), "name": cty.StringVal("trailpoll-read")})
	locals := map[string]cty.Value{}
	ctx := &hcl.EvalContext{
		Functions: map[string]function.Function{"concat": stdlib.ConcatFunc, "length": stdlib.LengthFunc, "jsonencode": stdlib.JSONEncodeFunc,
			"one": function.New(&function.Spec{
				Params: []function.Parameter{{Name: "list", Type: cty.DynamicPseudoType}},
				Type:   function.StaticReturnType(cty.DynamicPseudoType),
				Impl:   func(args []cty.Value, _ cty.Type) (cty.Value, error) { return args[0].Index(cty.NumberIntVal(0)), nil },
			})},
		Variables: map[string]cty.Value{
			"var":            cty.ObjectVal(variables),
			"data":           cty.ObjectVal(map[string]cty.Value{"aws_partition": cty.ObjectVal(map[string]cty.Value{"current": object("partition", s.partition)})}),
			"aws_iam_role":   cty.ObjectVal(map[string]cty.Value{"read": cty.TupleVal([]cty.Value{role})}),
			"aws_iam_policy": cty.ObjectVal(map[string]cty.Value{"read": object("arn", "arn")}),
			"local":          cty.EmptyObjectVal,
		},
	}
	var rest []*hclsyntax.Body
	pending := map[string]hclsyntax.Expression{}
	for _, b := range bodies {
		for _, block := range b.Blocks {
			switch block.Type {
			case "locals":
				for name, a := range block.Body.Attributes {
					pending[name] = a.Expr
				}
			case "variable":
				if _, ok := variables[block.Labels[0]]; !ok {
					t.Errorf("there is a variable %s", block.Labels[0])
				}
			case "resource", "output":
				rest = append(rest, block.Body)
			}
		}
	}
	for range 10 {
		for name, expr := range pending {
			v, diags := expr.Value(ctx)
			if diags.HasErrors() {
				continue
			}
			locals[name] = v
			ctx.Variables["local"] = cty.ObjectVal(locals)
			delete(pending, name)
		}
	}
	for name, expr := range pending {
		_, diags := expr.Value(ctx)
		t.Errorf("local.%s: %v", name, diags)
	}
	for _, b := range rest {
		for name, a := range b.Attributes {
			if _, diags := a.Expr.Value(ctx); diags.HasErrors() {
				t.Errorf("%s: %v", name, diags)
			}
		}
	}
	out := map[string]any{}
	for name, v := range locals {
		data, err := ctyjson.Marshal(v, v.Type())
		if err != nil {
			t.Fatal(err)
		}
		var plain any
		if err := json.Unmarshal(data, &plain); err != nil {
			t.Fatal(err)
		}
		out[name] = plain
	}
	return out
}
