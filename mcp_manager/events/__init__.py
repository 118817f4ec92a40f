"""What happens to servers, as typed records: told to listeners, to the application's callback, and to the log."""
