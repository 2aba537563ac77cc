package corpus

import (
	"strconv"
	"time"
)

// call is one kind of API call with the shapes of its members. The texts are
// expanded; an empty one is null, or no member at all where CloudTrail leaves
// the member out.
type call struct {
	weight    int
	source    string // eventSource, without ".amazonaws.com"
	name      string
	write     bool
	request   string
	response  string
	extra     string // additionalEventData
	resources string
	data      bool // a data event, not a management event
}

const keyARN = `arn:aws:kms:<region>:<account>:key/<uuid>`

// calls are what happens in the invented accounts.
var calls = []call{
	{weight: 9, source: "kms", name: "Decrypt",
		request:   `{"encryptionContext":{"PARAMETER_ARN":"arn:aws:ssm:<region>:<account>:parameter/<word>/<word>-<n>"},"encryptionAlgorithm":"SYMMETRIC_DEFAULT"}`,
		resources: `[{"accountId":"<account>","type":"AWS::KMS::Key","ARN":"` + keyARN + `"}]`},
	{weight: 3, source: "kms", name: "GenerateDataKey",
		request:   `{"keyId":"` + keyARN + `","encryptionContext":{"aws:s3:arn":"arn:aws:s3:::example-<word>-<n>"},"keySpec":"AES_256"}`,
		resources: `[{"accountId":"<account>","type":"AWS::KMS::Key","ARN":"` + keyARN + `"}]`},
	{weight: 8, source: "ec2", name: "DescribeRouteTables",
		request: `{"routeTableIdSet":{"items":[{"routeTableId":"rtb-0<hex17>"}]},"filterSet":{}}`},
	{weight: 8, source: "ec2", name: "DescribeInstances",
		request: `{"maxResults":1000,"instancesSet":{},"filterSet":{"items":[{"name":"tag:service","valueSet":{"items":[{"value":"<word>"}]}}]}}`},
	{weight: 5, source: "ec2", name: "DescribeVpcs", request: `{"vpcSet":{"items":[{"vpcId":"vpc-0<hex17>"}]},"filterSet":{}}`},
	{weight: 3, source: "ec2", name: "DescribeAccountAttributes"},
	{weight: 1, source: "ec2", name: "RunInstances", write: true,
		request:  `{"instancesSet":{"items":[{"imageId":"ami-0<hex17>","minCount":1,"maxCount":1}]},"instanceType":"t3.micro","blockDeviceMapping":{},"monitoring":{"enabled":false},"disableApiTermination":false}`,
		response: `{"requestId":"<uuid>","reservationId":"r-0<hex17>","ownerId":"<account>","groupSet":{},"instancesSet":{"items":[{"instanceId":"i-0<hex17>","imageId":"ami-0<hex17>","instanceState":{"code":0,"name":"pending"},"privateDnsName":"ip-198-51-100-<n>.example.com","instanceType":"t3.micro","launchTime":1794000000000,"placement":{"availabilityZone":"<region>a","tenancy":"default"},"subnetId":"subnet-0<hex17>","vpcId":"vpc-0<hex17>","privateIpAddress":"<ip>","stateReason":{"code":"pending","message":"pending"},"architecture":"x86_64","rootDeviceType":"ebs"}]}}`},
	{weight: 6, source: "iam", name: "GetUser", request: `{"userName":"<person>"}`},
	{weight: 4, source: "iam", name: "ListAttachedRolePolicies", request: `{"roleName":"example-<word>-<hex8>"}`},
	{weight: 6, source: "ssm", name: "DescribeParameters", request: `{"maxResults":50,"parameterFilters":[{"key":"Name","option":"Equals","values":["/<word>/<word>"]}]}`},
	{weight: 4, source: "ssm", name: "GetParameter", request: `{"name":"/<word>/<word>-<n>","withDecryption":true}`,
		resources: `[{"accountId":"<account>","ARN":"arn:aws:ssm:<region>:<account>:parameter/<word>/<word>-<n>"}]`},
	{weight: 3, source: "ssm", name: "PutParameter", write: true,
		request:   `{"name":"/<word>/<word>-<n>","type":"SecureString","keyId":"alias/aws/ssm","overwrite":true,"value":"HIDDEN_DUE_TO_SECURITY_REASONS"}`,
		response:  `{"version":<n>,"tier":"Standard"}`,
		resources: `[{"accountId":"<account>","ARN":"arn:aws:ssm:<region>:<account>:parameter/<word>/<word>-<n>"}]`},
	{weight: 4, source: "secretsmanager", name: "GetSecretValue", request: `{"secretId":"example/<word>/<word>"}`},
	{weight: 6, source: "sts", name: "AssumeRole",
		request:   `{"roleArn":"arn:aws:iam::<account>:role/example-<word>","roleSessionName":"<word>-<n>","durationSeconds":3600}`,
		response:  `{"credentials":{"accessKeyId":"ASIAIOSFODNN7EXAMPLE","sessionToken":"EXAMPLE//<id2>","expiration":"Nov 4, 2026, 10:12:41 PM"},"assumedRoleUser":{"assumedRoleId":"AROAIOSFODNN7EXAMPLE:<word>-<n>","arn":"arn:aws:sts::<account>:assumed-role/example-<word>/<word>-<n>"}}`,
		resources: `[{"accountId":"<account>","type":"AWS::IAM::Role","ARN":"arn:aws:iam::<account>:role/example-<word>"}]`},
	{weight: 3, source: "sts", name: "GetCallerIdentity"},
	{weight: 3, source: "health", name: "DescribeEventAggregates", request: `{"filter":{"eventStatusCodes":["open","upcoming"],"startTimes":[{"from":"Nov 3, 2026, 8:11:47\u202fPM"}]},"aggregateField":"eventTypeCategory"}`},
	{weight: 4, source: "logs", name: "DescribeLogStreams", request: `{"logGroupName":"/aws/lambda/example-<word>","orderBy":"LastEventTime","descending":true,"limit":<n>}`},
	{weight: 3, source: "lambda", name: "GetFunction20150331v2", request: `{"functionName":"arn:aws:lambda:<region>:<account>:function:example-<word>"}`},
	{weight: 3, source: "dynamodb", name: "DescribeTable", request: `{"tableName":"example-<word>"}`,
		resources: `[{"accountId":"<account>","type":"AWS::DynamoDB::Table","ARN":"arn:aws:dynamodb:<region>:<account>:table/example-<word>"}]`},
	{weight: 2, source: "ec2", name: "CreateNatGateway", write: true, // Tag beside tag: both are there in AWS's own records
		request:  `{"CreateNatGatewayRequest":{"AllocationId":"eipalloc-0<hex17>","SubnetId":"subnet-0<hex17>","TagSpecification":{"ResourceType":"natgateway","tag":1,"Tag":{"Value":"<word>","tag":1,"Key":"Name"}}}}`,
		response: `{"CreateNatGatewayResponse":{"xmlns":"http://ec2.amazonaws.com/doc/2016-11-15/","natGateway":{"natGatewayId":"nat-0<hex17>","state":"pending","createTime":"2026-11-03T22:01:11.000Z"},"requestId":"<uuid>"}}`},
	{weight: 2, source: "ce", name: "GetCostAndUsage", request: `{"TimePeriod":{"Start":"2026-10-01","End":"2026-11-01"},"Granularity":"MONTHLY","FromTime":1.688560107857E9}`},
	{weight: 3, source: "s3", name: "GetBucketAcl",
		request:   `{"bucketName":"example-<word>-<n>","Host":"example-<word>-<n>.s3.<region>.amazonaws.com","acl":""}`,
		extra:     `{"SignatureVersion":"SigV4","CipherSuite":"TLS_AES_128_GCM_SHA256","bytesTransferredIn":0,"AuthenticationMethod":"AuthHeader","x-amz-id-2":"<id2>","bytesTransferredOut":<n>}`,
		resources: `[{"accountId":"<account>","type":"AWS::S3::Bucket","ARN":"arn:aws:s3:::example-<word>-<n>"}]`},
	{weight: 6, source: "s3", name: "GetObject", data: true,
		request:   `{"bucketName":"example-<word>","Host":"example-<word>.s3.<region>.amazonaws.com","key":"exports/<word>/part\u003d<n>/<uuid>.parquet"}`,
		extra:     `{"SignatureVersion":"SigV4","CipherSuite":"TLS_AES_128_GCM_SHA256","bytesTransferredIn":0.0,"AuthenticationMethod":"AuthHeader","x-amz-id-2":"<id2>","bytesTransferredOut":<bytes>}`,
		resources: `[{"type":"AWS::S3::Object","ARN":"arn:aws:s3:::example-<word>/exports/<word>/part\u003d<n>"},{"accountId":"<account>","type":"AWS::S3::Bucket","ARN":"arn:aws:s3:::example-<word>"}]`},
}

// callTable holds each call's number as often as its weight says.
var callTable = func() (t []int) {
	for i, c := range calls {
		for range c.weight {
			t = append(t, i)
		}
	}
	return t
}()

const (
	assumedRole = `{"type":"AssumedRole","principalId":"AROAIOSFODNN7EXAMPLE:<word>-<n>","arn":"arn:aws:sts::<account>:assumed-role/example-<word>/<word>-<n>","accountId":"<account>","accessKeyId":"ASIAIOSFODNN7EXAMPLE","sessionContext":{"sessionIssuer":{"type":"Role","principalId":"AROAIOSFODNN7EXAMPLE","arn":"arn:aws:iam::<account>:role/example-<word>","accountId":"<account>","userName":"example-<word>"},"attributes":{"creationDate":"2026-11-03T21:0<digit>:1<digit>Z","mfaAuthenticated":"false"}}}`
	iamUser     = `{"type":"IAMUser","principalId":"AIDAIOSFODNN7EXAMPLE","arn":"arn:aws:iam::<account>:user/<person>","accountId":"<account>","accessKeyId":"AKIAIOSFODNN7EXAMPLE","userName":"<person>"}`
	rootUser    = `{"type":"Root","principalId":"<account>","arn":"arn:aws:iam::<account>:root","accountId":"<account>","accessKeyId":""}`
)

var agents = []string{
	"aws-cli/2.31.5 md/awscrt#0.27.6 ua/2.1 os/linux#6.1.0-13-amd64 md/arch#x86_64 lang/python#3.13.7 md/pyimpl#CPython cfg/retry-mode#standard md/installer#exe md/prompt#off md/command#ec2.describe",
	"APN/1.0 HashiCorp/1.0 Terraform/1.9.8 (+https://www.example.com) terraform-provider-aws/5.70.0 (+https://registry.example.com/providers/hashicorp/aws) aws-sdk-go-v2/1.30.5 os/linux lang/go#1.23.1 md/GOOS#linux md/GOARCH#amd64 api/ec2#1.177.3",
	"[S3Console/0.4, aws-internal/3 aws-sdk-java/1.12.488 Linux/5.10.184-153.731.amzn2int.x86_64 OpenJDK_64-Bit_Server_VM/25.372-b08 java/1.8.0_372 vendor/Oracle_Corporation cfg/retry-mode/standard]",
	"Boto3/1.34.0 md/Botocore#1.34.0 ua/2.0 os/linux#5.10 md/arch#x86_64 lang/python#3.11.6 md/pyimpl#CPython cfg/retry-mode#legacy Botocore/1.34.0",
	"aws-sdk-go-v2/1.30.3 os/linux lang/go#1.22.6 md/GOOS#linux md/GOARCH#arm64 api/kms#1.35.3",
}

// eventTime draws when an event of a file happened: 0 to 600 s before the
// file's stamp, half of them within 200 s.
func (g *gen) eventTime(stamp time.Time) time.Time {
	seconds := min(max(200+140*g.NormFloat64(), 0), 600)
	return stamp.Add(-time.Duration(seconds) * time.Second)
}

// apiCall appends one ordinary record: members in CloudTrail's order
// (eventVersion, userIdentity, …, eventCategory, tlsDetails), optional ones
// with the shares that real files show. A heavy tail makes a few records very
// large.
func (g *gen) apiCall(dst []byte, at time.Time) ([]byte, Record) {
	c := &calls[callTable[g.IntN(len(callTable))]]
	if g.chance(0.015) {
		return g.serviceEvent(dst, at)
	}
	start := len(dst)
	dst = append(dst, `{"eventVersion":"1.11","userIdentity":`...)
	service, address := "", ""
	switch p := g.Float64(); {
	case p < 0.57:
		dst = g.expand(dst, assumedRole)
	case p < 0.94:
		dst = g.expand(dst, iamUser)
	case p < 0.945:
		dst = g.expand(dst, rootUser)
	default:
		service = words[g.IntN(4)] + ".amazonaws.com"
		dst = append(dst, `{"type":"AWSService","invokedBy":"`+service+`"}`...)
	}
	dst = append(dst, `,"eventTime":"`...)
	timeAt := len(dst)
	dst = appendTime(dst, at)
	timeEnd := len(dst)
	host := c.source + "." + g.region + ".amazonaws.com"
	dst = append(dst, `","eventSource":"`+c.source+`.amazonaws.com","eventName":"`+c.name+`","awsRegion":"`+g.region+`","sourceIPAddress":"`...)
	switch {
	case service != "":
		address = service
	case g.chance(0.06):
		address = "AWS Internal"
	}
	if address != "" {
		dst = append(dst, address+`","userAgent":"`+address...)
	} else {
		dst = g.expand(dst, "<ip>")
		dst = append(dst, `","userAgent":"`+agents[g.IntN(len(agents))]...)
	}
	dst = append(dst, '"')
	failed := g.chance(0.10)
	if failed {
		dst = append(dst, `,"errorCode":"AccessDenied","errorMessage":"User: arn:aws:iam::`+g.account+`:user/example is not authorized to perform: `+
			c.source+`:`+c.name+` because no identity-based policy allows it"`...)
	}
	dst = append(dst, `,"requestParameters":`...)
	if c.request != "" && !g.chance(0.06) {
		dst = g.heavyTail(dst, c.request)
	} else {
		dst = append(dst, "null"...)
	}
	dst = append(dst, `,"responseElements":`...)
	if c.response != "" && !failed {
		dst = g.expand(dst, c.response)
	} else {
		dst = append(dst, "null"...)
	}
	if c.extra != "" {
		dst = g.expand(append(dst, `,"additionalEventData":`...), c.extra)
	}
	dst = append(dst, `,"requestID":"`...)
	if c.source == "s3" {
		dst = g.expand(dst, "<request>")
	} else {
		dst = g.uuid(dst)
	}
	dst = append(dst, `","eventID":"`...)
	idAt := len(dst)
	dst = g.uuid(dst)
	idEnd := len(dst)
	dst = append(dst, `","readOnly":`...)
	dst = strconv.AppendBool(dst, !c.write)
	if c.resources != "" {
		dst = g.expand(append(dst, `,"resources":`...), c.resources)
	}
	dst = append(dst, `,"eventType":"AwsApiCall"`...)
	if c.source == "lambda" || c.source == "dynamodb" {
		dst = append(dst, `,"apiVersion":"2015-03-31"`...)
	}
	dst = append(dst, `,"managementEvent":`...)
	dst = strconv.AppendBool(dst, !c.data)
	dst = append(dst, `,"recipientAccountId":"`+g.account+`"`...)
	if g.chance(0.012) {
		dst = g.expand(dst, `,"sharedEventID":"<uuid>"`)
	}
	if g.chance(0.05) {
		dst = g.expand(dst, `,"vpcEndpointId":"vpce-0<hex17>","vpcEndpointAccountId":"<account>"`)
	}
	if c.data {
		dst = append(dst, `,"eventCategory":"Data"`...)
	} else {
		dst = append(dst, `,"eventCategory":"Management"`...)
	}
	if address == "" && !g.chance(0.08) {
		dst = append(dst, `,"tlsDetails":{"tlsVersion":"TLSv1.3","cipherSuite":"TLS_AES_128_GCM_SHA256","clientProvidedHostHeader":"`+host+`"}`...)
		if g.chance(0.02) {
			dst = append(dst, `,"sessionCredentialFromConsole":"true"`...)
		}
	}
	dst = append(dst, '}')
	return dst, Record{
		Raw:       dst[start:len(dst):len(dst)],
		EventID:   string(dst[idAt:idEnd]),
		EventTime: string(dst[timeAt:timeEnd]),
	}
}

// heavyTail appends the request, and once in a while a very long member in it:
// published logs hardly show these, the field does (records of 64 KB and
// more, and up to the 256 KB that AWS allows).
func (g *gen) heavyTail(dst []byte, request string) []byte {
	size := 0
	switch n := g.IntN(60000); {
	case n < 1:
		size = 262_000
	case n < 3:
		size = 200_000
	case n < 9:
		size = 70_000
	case n < 39:
		size = 20_000
	case n < 400:
		size = 800 + g.IntN(2500)
	}
	dst = g.expand(dst, request)
	if size == 0 {
		return dst
	}
	dst = append(dst[:len(dst)-1], `,"filter":[`...)
	return append(g.items(dst, size), "]}"...)
}

// items appends the elements of an array, about size bytes of them.
func (g *gen) items(dst []byte, size int) []byte {
	for end, first := len(dst)+size, true; len(dst) < end; first = false {
		if !first {
			dst = append(dst, ',')
		}
		dst = g.expand(dst, `{"id":"i-0<hex17>","name":"example-<word>-<n>","address":"<ip>"}`)
	}
	return dst
}

// shape appends a record of a fixed shape; <time> and <id> stand for its event
// time and event id.
func (g *gen) shape(dst []byte, at time.Time, before, between, after string) ([]byte, Record) {
	start := len(dst)
	dst = g.expand(dst, before)
	timeAt := len(dst)
	dst = appendTime(dst, at)
	timeEnd := len(dst)
	dst = g.expand(dst, between)
	idAt := len(dst)
	dst = g.uuid(dst)
	idEnd := len(dst)
	dst = g.expand(dst, after)
	return dst, Record{
		Raw:       dst[start:len(dst):len(dst)],
		EventID:   string(dst[idAt:idEnd]),
		EventTime: string(dst[timeAt:timeEnd]),
	}
}

// serviceEvent appends an event that a service raised by itself: no
// userIdentity.type, no requestID.
func (g *gen) serviceEvent(dst []byte, at time.Time) ([]byte, Record) {
	return g.shape(dst, at,
		`{"eventVersion":"1.08","userIdentity":{"accountId":"<account>","invokedBy":"kms.amazonaws.com"},"eventTime":"`,
		`","eventSource":"kms.amazonaws.com","eventName":"RotateKey","awsRegion":"<region>","sourceIPAddress":"kms.amazonaws.com","userAgent":"kms.amazonaws.com","requestParameters":null,"responseElements":null,"eventID":"`,
		`","readOnly":false,"resources":[{"accountId":"<account>","type":"AWS::KMS::Key","ARN":"`+keyARN+`"}],"eventType":"AwsServiceEvent","managementEvent":true,"recipientAccountId":"<account>","serviceEventDetails":{"keyId":"<uuid>","backingKeyId":"<uuid>"},"eventCategory":"Management"}`)
}

// insight appends a record of CloudTrail-Insight: no userIdentity,
// eventSource, eventName at its top level.
func (g *gen) insight(dst []byte, at time.Time) ([]byte, Record) {
	return g.shape(dst, at,
		`{"eventVersion":"1.09","eventTime":"`,
		`","awsRegion":"<region>","eventID":"`,
		`","eventType":"AwsCloudTrailInsight","recipientAccountId":"<account>","sharedEventID":"<uuid>","insightDetails":{"state":"Start","eventSource":"ssm.amazonaws.com","eventName":"PutParameter","insightType":"ApiCallRateInsight","insightContext":{"statistics":{"baseline":{"average":9.82222E-5},"insight":{"average":70.0},"insightDuration":1,"baselineDuration":10180},"attributions":[{"attribute":"userIdentityArn","insight":[{"value":"arn:aws:iam::<account>:user/<person>","average":70.0}],"baseline":[{"value":"arn:aws:iam::<account>:user/<person>","average":9.82222E-5}]}]}},"eventCategory":"Insight"}`)
}

// networkActivity appends a record of CloudTrail-NetworkActivity.
func (g *gen) networkActivity(dst []byte, at time.Time) ([]byte, Record) {
	return g.shape(dst, at,
		`{"eventVersion":"1.09","userIdentity":{"type":"AWSAccount","principalId":"AIDAIOSFODNN7EXAMPLE","accountId":"<account>"},"eventTime":"`,
		`","eventSource":"s3.amazonaws.com","eventName":"ListBuckets","awsRegion":"<region>","sourceIPAddress":"<ip>","errorCode":"VpceAccessDenied","errorMessage":"The request was denied due to a VPC endpoint policy","requestParameters":null,"responseElements":null,"requestID":"<request>","eventID":"`,
		`","eventType":"AwsVpceEvent","recipientAccountId":"<account>","sharedEventID":"<uuid>","vpcEndpointId":"vpce-0<hex17>","vpcEndpointAccountId":"<account>","eventCategory":"NetworkActivity"}`)
}

// aggregated appends a record of CloudTrail-Aggregated: eventId instead of
// eventID, and no eventTime at all
// (https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-aggregated-events.html).
func (g *gen) aggregated(dst []byte, at time.Time) ([]byte, Record) {
	window := at.UTC().Truncate(5 * time.Minute).Format(time.RFC3339)
	start := len(dst)
	dst = g.expand(dst, `{"eventVersion":"1.0","accountId":"<account>","eventId":"`)
	idAt := len(dst)
	dst = g.uuid(dst)
	idEnd := len(dst)
	dst = append(dst, `","eventCategory":"Aggregated","eventType":"AwsAggregatedEvent","timeWindow":{"windowStart":"`+window+`","windowEnd":"`+window+`","windowSize":"PT5M"}`...)
	dst = g.expand(dst, `,"awsRegion":"<region>","summary":{"primaryDimension":{"dimension":"eventName","statistics":[{"name":"GetObject","value":<n>}]},"details":[{"dimension":"userIdentity","statistics":[{"name":"arn:aws:iam::<account>:user/<person>","value":<n>}]}]}}`)
	return dst, Record{Raw: dst[start:len(dst):len(dst)], EventID: string(dst[idAt:idEnd])}
}

// record appends a record of the sequence's log type.
func (g *gen) record(dst []byte, at time.Time) ([]byte, Record) {
	switch g.logType {
	case Insight:
		return g.insight(dst, at)
	case NetworkActivity:
		return g.networkActivity(dst, at)
	case Aggregated:
		return g.aggregated(dst, at)
	}
	return g.apiCall(dst, at)
}
