"""One function a verb: it calls the face and prints."""
