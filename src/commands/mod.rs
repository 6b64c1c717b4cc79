pub mod sms_sandbox;
