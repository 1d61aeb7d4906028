"""Questions and answers about test images, written by a vision-language model or from the annotations alone."""
