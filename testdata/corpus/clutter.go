package corpus

import "time"

// folders yields what stands once in a bucket, an account or a stream: the
// markers that a console makes for folders, and files of nobody's.
func folders(l Layout, account, region string, firstOfBucket, firstOfAccount bool, stamp time.Time, yield func(Object) bool) bool {
	home := l.root() + account + "/"
	stream := home + CloudTrail + "/" + region + "/"
	day := stream + stamp.Format("2006/01/02/")
	var all []Object
	add := func(kind Kind, key, body string) {
		all = append(all, Object{
			Kind: kind, Key: key, Body: []byte(body), AppearsAt: stamp,
			Prefix: l.Prefix, Organization: l.Organization, Account: account, Region: region,
		})
	}
	if firstOfBucket {
		add(Marker, l.root(), "")
	}
	if firstOfAccount {
		add(Marker, home, "")
		add(Foreign, home+"Config/ConfigWritabilityCheckFile", "")
	}
	add(Marker, stream, "")
	add(Marker, day, "")
	add(Foreign, day+"notes.txt", "left here by an operator")
	for _, o := range all {
		if !yield(o) {
			return false
		}
	}
	return true
}

// clutter yields what other deliveries put beside a stream's log files: a
// digest each full hour, and now and then something of another service.
func (c *Corpus) clutter(g *gen, l Layout, p *packer, stamp time.Time, yield func(Object) bool) bool {
	home := l.root() + g.account + "/"
	day := home + CloudTrail + "/" + g.region + stamp.Format("/2006/01/02/")
	give := func(kind Kind, key string, body []byte) bool {
		return yield(Object{
			Kind: kind, Key: key, Body: body, AppearsAt: stamp,
			Prefix: l.Prefix, Organization: l.Organization, Account: g.account, Region: g.region,
		})
	}
	if stamp.Minute() == 0 { // a digest covers an hour and is stamped with its end
		key := home + "CloudTrail-Digest/" + g.region + stamp.Format("/2006/01/02/") +
			g.account + "_CloudTrail-Digest_" + g.region + "_example_trail.1_us-east-1_" + stamp.Format("20060102T150405Z") + ".json.gz"
		body := p.gz(g.expand(nil, `{"awsAccountId":"<account>","digestStartTime":"`+stamp.Add(-time.Hour).Format(time.RFC3339)+
			`","digestEndTime":"`+stamp.Format(time.RFC3339)+`","digestS3Bucket":"example-trail","digestS3Object":"`+key+
			`","digestPublicKeyFingerprint":"00112233445566778899aabbccddeeff","digestSignatureAlgorithm":"SHA256withRSA","newestEventTime":null,"oldestEventTime":null,"previousDigestS3Bucket":null,"previousDigestS3Object":null,"previousDigestHashValue":null,"previousDigestHashAlgorithm":null,"previousDigestSignature":null,"logFiles":[]}`))
		if !give(Digest, key, body) {
			return false
		}
	}
	if g.chance(0.05) && !give(Foreign, day+g.account+"_CloudTrail_"+g.region+stamp.Format("_20060102T1504Z_copy.json"), []byte(`{"Records":[]}`)) {
		return false
	}
	if g.chance(0.2) && !give(Foreign, home+"Config/"+g.region+stamp.Format("/2006/1/2/")+"ConfigSnapshot/"+g.account+"_Config_"+g.region+
		"_ConfigSnapshot_"+stamp.Format("20060102T150405Z_")+string(g.uuid(nil))+".json.gz",
		p.gz([]byte(`{"fileVersion":"1.0","configurationItems":[]}`))) {
		return false
	}
	return !g.chance(0.1) || give(Foreign, home+"elasticloadbalancing/"+g.region+stamp.Format("/2006/01/02/")+g.account+
		"_elasticloadbalancing_"+g.region+"_app.example.0123456789abcdef_"+stamp.Format("20060102T1504Z")+"_192.0.2.10_2abcdefg.log.gz",
		[]byte("an access log of another service"))
}
