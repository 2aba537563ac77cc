# The least that trailpoll needs to read CloudTrail logs from a bucket: a policy,
# and with caller_arn a role in the account of the bucket for an identity of
# another account. For the partitions aws, aws-us-gov and aws-cn alike.

terraform {
  required_version = ">= 1.3"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 4.0"
    }
  }
}

data "aws_partition" "current" {}

locals {
  bucket_arn = "arn:${data.aws_partition.current.partition}:s3:::${var.bucket}"
  logs_arn   = var.prefix == "" ? "${local.bucket_arn}/AWSLogs/*" : "${local.bucket_arn}/${var.prefix}/AWSLogs/*"

  via_s3 = { StringLike = { "kms:ViaService" = "s3.*" } }

  read_policy = {
    Version = "2012-10-17"
    Statement = concat(
      [
        { Sid = "ListLogs", Effect = "Allow", Action = "s3:ListBucket", Resource = [local.bucket_arn] },
        { Sid = "GetLogs", Effect = "Allow", Action = "s3:GetObject", Resource = [local.logs_arn] },
      ],
      [
        for keys in [var.kms_key_arns] :
        { Sid = "DecryptLogs", Effect = "Allow", Action = "kms:Decrypt", Resource = keys, Condition = local.via_s3 }
        if length(keys) > 0
      ],
    )
  }

  trust_policy = {
    Version = "2012-10-17"
    Statement = [{
      Sid       = "Trailpoll"
      Effect    = "Allow"
      Principal = { AWS = var.caller_arn }
      Action    = "sts:AssumeRole"
      Condition = { StringEquals = { "sts:ExternalId" = var.external_id } }
    }]
  }

  reader_arn = var.caller_arn == "" ? "*** the ARN of the reader ***" : aws_iam_role.read[0].arn

  bucket_statements = [
    { Sid = "TrailpollList", Effect = "Allow", Principal = { AWS = local.reader_arn }, Action = "s3:ListBucket", Resource = [local.bucket_arn] },
    { Sid = "TrailpollGet", Effect = "Allow", Principal = { AWS = local.reader_arn }, Action = "s3:GetObject", Resource = [local.logs_arn] },
  ]

  key_statement = {
    Sid       = "TrailpollDecrypt"
    Effect    = "Allow"
    Principal = { AWS = local.reader_arn }
    Action    = "kms:Decrypt"
    Resource  = ["*"]
    Condition = local.via_s3
  }
}

resource "aws_iam_policy" "read" {
  name        = var.name
  description = "read CloudTrail logs with trailpoll"
  policy      = jsonencode(local.read_policy)
}

resource "aws_iam_role" "read" {
  count              = var.caller_arn == "" ? 0 : 1
  name               = var.name
  description        = "read CloudTrail logs with trailpoll"
  assume_role_policy = jsonencode(local.trust_policy)

  lifecycle {
    precondition {
      condition     = var.external_id != ""
      error_message = "A role for another account needs an external_id."
    }
  }
}

resource "aws_iam_role_policy_attachment" "read" {
  count      = var.caller_arn == "" ? 0 : 1
  role       = aws_iam_role.read[0].name
  policy_arn = aws_iam_policy.read.arn
}
