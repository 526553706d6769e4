"""The file formats that commands read and write."""
