output "policy_arn" {
  description = "attach it to the user or role that the agent runs as, if no role was made"
  value       = aws_iam_policy.read.arn
}

output "role_arn" {
  description = "write it as arn in [[source.credentials.assume_role]]"
  value       = one(aws_iam_role.read[*].arn)
}

output "bucket_policy_statements" {
  description = "add these to the policy of the bucket, if the reader is of another account and assumes no role"
  value       = jsonencode(local.bucket_statements)
}

output "key_policy_statement" {
  description = "add this to the policy of the KMS key"
  value       = jsonencode(local.key_statement)
}
