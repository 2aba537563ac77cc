variable "bucket" {
  description = "the bucket that the trail writes to"
  type        = string
}

variable "prefix" {
  description = "the trail's S3 key prefix, without AWSLogs/ and without a slash at its end; empty = none"
  type        = string
  default     = ""
}

variable "kms_key_arns" {
  description = "the ARNs of the KMS keys that the logs are encrypted with; none = none of your own"
  type        = list(string)
  default     = []
}

variable "name" {
  description = "the name of the policy and of the role"
  type        = string
  default     = "trailpoll-read"
}

variable "caller_arn" {
  description = "the ARN of the user or role, of another account, that the agent has credentials of; empty = make no role, only a policy to attach"
  type        = string
  default     = ""
}

variable "external_id" {
  description = "what the agent must know to assume the role (external_id)"
  type        = string
  default     = ""

  validation {
    condition     = var.external_id == "" || length(var.external_id) >= 2
    error_message = "An external id has 2 characters or more."
  }
}
